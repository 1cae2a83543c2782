"""Markdown from records. Nothing in a table was typed by hand, and a cell that failed stays in it with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.records import RESULTS
from benchmarks.suite.kinds import KINDS, kind_of
from benchmarks.suite.record import files, picture, read
from xpo.bench.summary import Line, Summary, summarise
from xpo.bench.table import LEGEND, cost, quality
from xpo.train.marked import Cells, grid

NOTHING = "Nothing has been measured yet.\n"
#: Methods of each kind of data in the short table, and its columns beside the method and what it learns from.
BEST, COLUMNS = 2, ("win_rate", "mean_reward", "preference_accuracy", "kl", "mean_length")


def newest(folder: Path = RESULTS) -> str:
    """The figure and the tables of the newest record in a folder."""
    found = files(folder)
    return _whole(read(found[-1]), f"{folder.name}/{picture(found[-1]).name}") if found else NOTHING


def short(folder: Path = RESULTS) -> str:
    """The best methods of each kind of data in the newest record."""
    found = files(folder)
    return _short(read(found[-1])) if found else NOTHING


def _whole(record: Mapping[str, Any], figure: str) -> str:
    summary = summarise(record)
    parts = [_where(record), "", f"![Reward, win rate and KL of every method]({figure})", ""]
    parts += [*grid(_with_kinds(quality(summary), summary.lines)), "", LEGEND, "", "**What training took**", ""]
    parts += [*grid(cost(summary)), ""]
    if summary.failures:
        parts += ["**Failed**", "", *(f"* {which}: {why}" for which, why in summary.failures), ""]
    if summary.notes:
        parts += [*(f"* {note}" for note in summary.notes), ""]
    return "\n".join(parts)


def _short(record: Mapping[str, Any]) -> str:
    summary = summarise(record)
    keep = {0, *_best(summary.lines)}
    rows = _with_kinds(quality(summary), summary.lines)
    wanted = [0, 1, *(_place(rows[0], summary, key) for key in COLUMNS if key in _keys(summary))]
    chosen = [rows[0], *(row for number, row in enumerate(rows[1:]) if number in keep)]
    seeds = ", ".join(map(str, record["seeds"]))
    count = sum(1 for line in summary.lines if line.algo and line.numbers)
    return "\n".join(
        [
            *grid([[row[one] for one in wanted] for row in chosen]),
            "",
            f"The {BEST} best of each kind of data among {count} methods by win rate against the start; seeds {seeds}, "
            "means with 95 % intervals over prompts and seeds." + "".join(f" Note: {note}." for note in summary.notes),
            "",
        ]
    )


def _best(lines: Sequence[Line]) -> Iterator[int]:
    """Where the first of each kind are; lines come best first."""
    seen = dict.fromkeys(KINDS, 0)
    for number, line in enumerate(lines):
        kind = kind_of(line.algo) if line.algo and line.numbers else ""
        if kind in seen and seen[kind] < BEST:
            seen[kind] += 1
            yield number


def _with_kinds(rows: Sequence[Cells], lines: Sequence[Line]) -> list[Cells]:
    """A table with what each method learns from after its name."""
    kinds = ["learns from", *(KINDS.get(kind_of(line.algo), "") if line.algo else "" for line in lines)]
    return [[row[0], (kind, ""), *row[1:]] for row, kind in zip(rows, kinds, strict=True)]


def _keys(summary: Summary) -> list[str]:
    return [column.key for column in summary.columns]


def _place(head: Cells, summary: Summary, key: str) -> int:
    """Where a column is in the table: those that are measured come last."""
    return len(head) - len(summary.columns) + _keys(summary).index(key)


def _where(record: Mapping[str, Any]) -> str:
    start, done = record["start"], [cell for cell in record["cells"] if cell["status"] == "done"]
    commits = sorted({_commit(cell["git"]) for cell in done})
    versions = [f"{name} {start['versions'][name]}" for name in ("torch", "transformers") if name in start["versions"]]
    prompts = len(start["examined"]["test"]["lengths"])
    steps = " or ".join(map(str, sorted({cell["steps"] for cell in done})))
    return (
        f"{len(record['methods'])} methods, seeds {', '.join(map(str, record['seeds']))}, {steps} steps, "
        f"{prompts} test prompts; {start['device']['name']}, xpo at {', '.join(commits)}, {', '.join(versions)}. "
        "Best win rate first."
    )


def _commit(git: Mapping[str, Any] | None) -> str:
    return "an unknown commit" if git is None else f"{git['commit'][:10]}{' with changes' if git['dirty'] else ''}"
