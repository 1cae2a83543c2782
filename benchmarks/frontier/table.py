"""Markdown from records. Nothing in a table was typed by hand, and a run that failed stays in it with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.frontier.methods import BEST_OF
from benchmarks.frontier.points import Point, failures, points_of, reward_at, start_of
from benchmarks.frontier.record import RECORDS
from benchmarks.records import RESULTS
from benchmarks.testbed.claims import shown
from benchmarks.testbed.numbers import difference
from xpo.train.intervals import Estimate

#: KL at which methods are compared, in nats.
BUDGETS = (1.0, 2.0, 5.0, 10.0)


def newest(folder: Path = RESULTS) -> str:
    """The figure and the tables of the newest record in a folder."""
    found = RECORDS.everything(folder)
    if not found:
        return "Nothing has been measured yet.\n"
    path, record = list(found.items())[-1]
    picture = f"{folder.name}/{path.with_suffix('.svg').name}"
    return f"![Mean true reward against KL to the start]({picture})\n\n{tables(record)}"


def tables(record: Mapping[str, Any]) -> str:
    """A record: which method has the most reward at which KL, and the ends of all runs."""
    names = [*record["methods"], BEST_OF]
    found = {name: points for name in names if (points := points_of(record, name))}
    return "\n".join([*_head(record), *_compared(record, found), *_ends(record, found, names)])


def title_of(record: Mapping[str, Any], name: str) -> str:
    """What a method is called."""
    return "best of n" if name == BEST_OF else str(record["methods"][name]["title"])


def _head(record: Mapping[str, Any]) -> Iterator[str]:
    machine, versions, work = record["machine"], record["versions"], record["work"]
    git = record["git"] or {"commit": "unknown", "dirty": False}
    libraries = [f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions]
    yield (
        f"{record['started'][:10]}, {machine['name']}, {machine['threads']} threads, xpo at {git['commit'][:10]}"
        f"{' with changes' if git['dirty'] else ''}, {', '.join(libraries)}; {work['steps']} steps, looked at "
        f"{work['looks']} times with {work['samples']} samples of each of {work['prompts']} held-out prompts."
        + ("" if record["finished"] else " This record is not finished.")
    )
    yield ""


def _compared(record: Mapping[str, Any], found: Mapping[str, Sequence[Point]]) -> Iterator[str]:
    yield "**Mean true reward at a KL to the start**"
    yield ""
    yield from _heading(["KL, nats", *(title_of(record, name) for name in found), "most"])
    for budget in BUDGETS:
        rewards = {name: reward_at(points, budget) for name, points in found.items()}
        there = {title_of(record, name): one for name, one in rewards.items() if one is not None}
        if there:
            cells = ["" if one is None else shown(one, sign=False) for one in rewards.values()]
            yield _row([f"{budget:g}", *cells, _most(there)])
    yield ""


def _most(rewards: Mapping[str, Estimate]) -> str:
    """The one with the most reward, with those that cannot be told from it; all alone it leads nobody."""
    if len(rewards) < 2:
        return ""
    first, *others = sorted(rewards, key=lambda name: -rewards[name].value)
    close = [name for name in others if difference(rewards[first], rewards[name]).low <= 0]
    return first + (f", not told from {', '.join(close)}" if close else "")


def _ends(record: Mapping[str, Any], found: Mapping[str, Sequence[Point]], names: Sequence[str]) -> Iterator[str]:
    yield "**Where the runs end**"
    yield ""
    yield from _heading(["", "setting", "learns from", "seeds", "KL to the start, nats", "reward", "tokens"])
    start = start_of(record)
    if start is not None:
        yield _row(["the start", "", "", "", "0", shown(start, sign=False), ""])
    for name in names:
        title = title_of(record, name)
        learns = "nothing: it is chosen by the known reward" if name == BEST_OF else record["methods"][name]["learns"]
        for one in found.get(name, ()):
            if one.last:
                kl = f"at most {one.kl.value:.2f}" if name == BEST_OF else shown(one.kl, sign=False)
                tokens = "" if one.tokens is None else f"{one.tokens:.1f}"
                yield _row([title, one.label, learns, str(one.seeds), kl, shown(one.reward, sign=False), tokens])
        for what, why in failures(record, name):
            yield _row([title, what, learns, "", "", f"failed: {why}", ""])
    yield ""


def _heading(cells: Sequence[str]) -> Iterator[str]:
    yield _row(cells)
    yield "|" + "---|" * len(cells)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
