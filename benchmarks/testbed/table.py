"""Markdown from records. Nothing in a table was typed by hand, and a run that failed stays in it with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.records import RESULTS
from benchmarks.testbed.claims import Judged, judged
from benchmarks.testbed.numbers import runs_of
from benchmarks.testbed.record import RECORDS


def newest(folder: Path = RESULTS) -> str:
    """The tables of a folder: of every experiment those of the newest record that has it."""
    records = list(RECORDS.everything(folder).values())
    homes = {name: record for record in records for name in record["experiments"]}
    shown = [
        {**record, "experiments": {name: one for name, one in record["experiments"].items() if homes[name] is record}}
        for record in records
    ]
    return "\n".join(tables(record) for record in shown if record["experiments"]) or "Nothing has been measured yet.\n"


def tables(record: Mapping[str, Any]) -> str:
    """All experiments of a record: first which claims held, then the numbers."""
    found = {name: judged(record, name) for name in record["experiments"]}
    found = {name: lines for name, lines in found.items() if lines}
    return "\n".join([*_head(record), *_summary(record, found), *_parts(record, found)])


def _head(record: Mapping[str, Any]) -> Iterator[str]:
    machine, versions = record["machine"], record["versions"]
    git = record["git"] or {"commit": "unknown", "dirty": False}
    shown = [f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions]
    yield (
        f"{record['started'][:10]}, {machine['name']}, {machine['threads']} threads, xpo at {git['commit'][:10]}"
        f"{' with changes' if git['dirty'] else ''}, {', '.join(shown)}."
        + ("" if record["finished"] else " This record is not finished.")
    )
    yield ""


def _summary(record: Mapping[str, Any], found: Mapping[str, Sequence[Judged]]) -> Iterator[str]:
    yield from _heading(["experiment", "claim", "held", "not held", "failed", "sides not run"])
    for name, lines in found.items():
        words = Counter(line.verdict.partition(",")[0] for line in lines if line.verdict)
        total = sum(words.values())
        cells = [f"`{name}`", record["experiments"][name]["claim"], f"{words['held']} of {total}"]
        for word in ("not held", "failed"):
            cells.append("; ".join(line.title for line in lines if line.verdict.partition(",")[0] == word))
        absent = [side for side in record["experiments"][name]["sides"] if not runs_of(record, side)]
        yield _row([*cells, str(len(absent)) if absent else ""])
    yield ""


def _parts(record: Mapping[str, Any], found: Mapping[str, Sequence[Judged]]) -> Iterator[str]:
    for name, lines in found.items():
        yield f"**{record['experiments'][name]['title']}** (`{name}`)"
        yield ""
        columns = list(dict.fromkeys(key for line in lines for key in line.cells))
        yield from _heading(["", "seeds", *columns, "claim"])
        for line in lines:
            if line.failed is None:
                cells = [str(line.seeds), *(line.cells.get(key, "") for key in columns), line.verdict]
            else:
                cells = ["", *([""] * len(columns)), f"failed: {line.failed}"]
            yield _row([line.title, *cells])
        yield ""


def _heading(cells: Sequence[str]) -> Iterator[str]:
    yield _row(cells)
    yield "|" + "---|" * len(cells)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
