"""Markdown from records. Nothing in a table was typed by hand, and a run that failed stays in it with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.records import RESULTS
from benchmarks.rollouts.record import RECORDS
from benchmarks.throughput.numbers import durations

#: Steps at the beginning of a run that no table counts.
WARMUP = 2
COLUMNS = (
    "side",
    "s a step, median (range)",
    "share of the first",
    "sampling, s a step",
    "the rest, s a step",
    "tokens a step",
    "sampled tokens/s",
    "peak memory, GB (before step 1)",
)


@dataclass(frozen=True)
class Summary:
    """A side over all steps of all its runs, but for those that warm up: medians of seconds, and a mean of tokens."""

    step: float
    fastest: float
    slowest: float
    sampling: float
    rest: float
    tokens: float
    rate: float
    peak: int | None
    before: int | None


def summarise(runs: Sequence[Mapping[str, Any]]) -> Summary:
    """The numbers of a side from its runs, none of which failed."""
    steps = [seconds for run in runs for seconds in durations(run)[WARMUP:]]
    sampled = [one for run in runs for one in run["sampling"][WARMUP:]]
    seconds, tokens = (sum(one[name] for one in sampled) for name in ("seconds", "tokens"))
    return Summary(
        step=median(steps),
        fastest=min(steps),
        slowest=max(steps),
        sampling=median(one["seconds"] for one in sampled),
        rest=median(step - one["seconds"] for step, one in zip(steps, sampled, strict=True)),
        tokens=tokens / len(sampled),
        rate=tokens / seconds,
        peak=max((run["memory_peak"] for run in runs if run["memory_peak"]), default=None),
        before=max((run["memory_before"] for run in runs if run["memory_before"]), default=None),
    )


def newest(folder: Path = RESULTS) -> str:
    """The tables of a folder: of the newest record, and of those of the same code beside it."""
    records = list(RECORDS.everything(folder).values())
    shown = [record for record in records if record["git"] == records[-1]["git"]]
    return "\n".join(map(tables, shown)) or "Nothing has been measured yet.\n"


def tables(record: Mapping[str, Any]) -> str:
    """All cases of a record."""
    machine, versions, work = record["machine"], record["versions"], record["work"]
    git = record["git"] or {"commit": "unknown", "dirty": False}
    shown = [f"{name} {versions[name]}" for name in ("torch", "transformers", "trl") if name in versions]
    head = (
        f"{record['started'][:10]}, {machine['name']}, {machine['threads']} threads, xpo at {git['commit'][:10]}"
        f"{' with changes' if git['dirty'] else ''}, {', '.join(shown)}; {record['model']}; {work['prompts']} prompts "
        f"a step, {work['samples']} samples of each, {work['tokens']} tokens at most."
        + ("" if record["finished"] else " This record is not finished.")
    )
    return "\n".join([head, "", *(line for case in record["cases"] for line in _case(case))])


def _case(case: Mapping[str, Any]) -> Iterator[str]:
    yield f"**{case['title']}** (`{case['name']}`)"
    yield ""
    yield _row(COLUMNS)
    yield "|" + "---|" * len(COLUMNS)
    first = None
    for side in case["sides"]:
        runs = [run for run in case["runs"] if run["side"] == side["name"]]
        good = [run for run in runs if "failed" not in run]
        if not runs:
            continue
        if not good:
            yield _row([side["title"], f"failed: {runs[0]['failed']}", *([""] * (len(COLUMNS) - 2))])
            continue
        found = summarise(good)
        first = first or found
        yield _row(_cells(side["title"], found, first))
    yield ""


def _cells(title: str, found: Summary, first: Summary) -> list[str]:
    return [
        title,
        f"{found.step:.3g} ({found.fastest:.3g} to {found.slowest:.3g})",
        "" if found is first else f"{100 * found.step / first.step:.0f} %",
        f"{found.sampling:.3g}",
        f"{found.rest:.3g}",
        f"{found.tokens:,.0f}",
        f"{found.rate:,.0f}",
        f"{_gigabytes(found.peak)} ({_gigabytes(found.before)})",
    ]


def _gigabytes(number: int | None) -> str:
    return "unknown" if number is None else f"{number / 1e9:.2f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
