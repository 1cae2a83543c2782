"""From records to the table: a line for each method, intervals, the best of each column and what equals it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from xpo.bench.choice import Tried, tried
from xpo.bench.failure import shown
from xpo.bench.notes import name_of, notes_of
from xpo.bench.records import done
from xpo.bench.scores import PRICES, Column, columns_of, main_column, table_of
from xpo.train.marked import Number, marks
from xpo.train.statistics import Table, mean_of, paired_p

#: The line of the start.
START = "start"


@dataclass(frozen=True)
class Line:
    """A method in the table.

    Attributes:
        setting: the chosen one, where several were tried.
        seeds, of: cells the numbers rest on, and those there are.
        numbers: by column, of test prompts.
        prices: by column, what training took.
        state: ``done``, ``part`` (some seeds are failed or missing), ``failed``, ``missing``.
    """

    method: str
    algo: str
    setting: str = ""
    seeds: int = 0
    of: int = 0
    numbers: Mapping[str, Number] = field(default_factory=dict)
    prices: Mapping[str, float | None] = field(default_factory=dict)
    state: str = "done"

    @property
    def is_start(self) -> bool:
        """Whether it is the line of the start; a method may be called so too."""
        return self.method == START and not self.algo


@dataclass(frozen=True)
class Summary:
    """All that is shown.

    Attributes:
        columns: those that were measured.
        lines: the start, then the methods, best first.
        tried: all settings, where several were tried.
        failures: of every failed cell: which, why.
        notes: what a reader should know.
    """

    columns: Sequence[Column]
    lines: Sequence[Line]
    tried: Sequence[Tried]
    failures: Sequence[tuple[str, str]]
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, for ``records.json``."""
        heads = [
            {name: getattr(column, name) for name in ("key", "title", "better", "share", "digits", "note")}
            for column in self.columns
        ]
        prices = [
            {name: getattr(price, name) for name in ("key", "title", "better", "digits", "times")} for price in PRICES
        ]
        settings = [
            {**asdict(one), "score": None if one.score is None else [_number(part) for part in one.score]}
            for one in self.tried
        ]
        return {
            "columns": heads,
            "prices": prices,
            "lines": [asdict(line) for line in self.lines],
            "tried": settings,
            "failures": [list(one) for one in self.failures],
            "notes": list(self.notes),
        }


def summarise(records: Mapping[str, Any]) -> Summary:
    """The table of some records."""
    settings = {method: tried(records, method) for method in records["methods"]}
    chosen = {method: next((one for one in some if one.chosen), None) for method, some in settings.items()}
    cells = {method: done(records, method, one.setting) if one else [] for method, one in chosen.items()}
    every = columns_of(records)
    tables = {
        column.key: {
            method: table for method, mine in cells.items() if (table := table_of(column, mine, records)) is not None
        }
        for column in every
    }
    columns = [column for column in every if tables[column.key]]
    marked = {column.key: _marks(column, tables[column.key], cells) for column in columns}
    lines = [
        _line(records, method, chosen[method], cells[method], columns, tables, marked) for method in records["methods"]
    ]
    main = main_column(records).key
    lines.sort(key=lambda line: -(line.numbers[main].value or 0.0) if main in line.numbers else math.inf)
    failures = [(name_of(cell), shown(cell["failed"])) for cell in records["cells"] if cell["status"] == "failed"]
    several = [one for some in settings.values() for one in some] if records["shared"]["validation"] else []
    return Summary(columns, [_start(records, columns), *lines], several, failures, notes_of(records, columns))


def _line(
    records: Mapping[str, Any],
    method: str,
    chosen: Tried | None,
    cells: Sequence[Mapping[str, Any]],
    columns: Sequence[Column],
    tables: Mapping[str, Mapping[str, Table]],
    marks: Mapping[str, Mapping[str, str]],
) -> Line:
    every = [cell for cell in records["cells"] if cell["method"] == method]
    mine = every if chosen is None else [cell for cell in every if cell["setting"] == chosen.setting]
    if not cells:
        state = "failed" if any(cell["status"] == "failed" for cell in every) else "missing"
        return Line(method, records["methods"][method], of=len({cell["seed"] for cell in every}), state=state)
    numbers = {
        column.key: Number.of(column.estimate(tables[column.key][method]), marks[column.key].get(method, ""))
        for column in columns
        if method in tables[column.key]
    }
    return Line(
        method,
        records["methods"][method],
        chosen.setting if chosen else "",
        len(cells),
        len(mine),
        numbers,
        {price.key: price.mean(cells) for price in PRICES},
        "done" if len(cells) == len(mine) else "part",
    )


def _marks(
    column: Column, tables: Mapping[str, Table], cells: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, str]:
    """The best of a column, and those that a paired test over prompts and seeds cannot tell from it."""
    if column.better is None or not tables:
        return {}
    sign = 1 if column.better == "up" else -1
    means = {method: sign * column.estimate(table).value for method, table in tables.items()}

    def p(one: str, other: str) -> float | None:
        rows = [
            {int(cell["seed"]): row for cell, row in zip(cells[name], tables[name], strict=True)}
            for name in (one, other)
        ]
        both = sorted(rows[0].keys() & rows[1].keys())
        return paired_p([rows[0][seed] for seed in both], [rows[1][seed] for seed in both]) if both else None

    return marks(means, p)


def _start(records: Mapping[str, Any], columns: Sequence[Column]) -> Line:
    """What the start is like, where that says something."""
    seen = records["start"]["examined"]["test"]
    numbers: dict[str, Number] = {}
    for column in columns:
        if column.key == "mean_reward":
            numbers[column.key] = Number.of(mean_of([seen["rewards"]]))
        elif column.key == "mean_length":
            numbers[column.key] = Number.of(mean_of([[float(one) for one in seen["lengths"]]]))
        elif column.key in seen.get("measured", {}):
            numbers[column.key] = Number.of(column.estimate([seen["measured"][column.key]]))
        elif column.key == "kl":
            numbers[column.key] = Number(0.0)
        else:
            numbers[column.key] = Number(0.5)  # by definition
    return Line(START, "", numbers=numbers)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
