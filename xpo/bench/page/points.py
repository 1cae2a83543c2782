"""What two columns of the table are for every cell and every method, for figures of one against the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xpo.bench.page.methods import Method
from xpo.bench.records import done
from xpo.bench.scores import Column, table_of
from xpo.bench.summary import START, Summary
from xpo.bench.table import number
from xpo.train.marked import Number

#: What says how good samples are, the first that was measured.
WORTH = ("mean_reward", "win_rate", "preference_accuracy")


@dataclass(frozen=True)
class Point:
    """A place in a figure, in the units of its axes.

    Attributes:
        method: None for the start.
        seed: of a cell; None for a method's mean and for the start.
        x, y: with their intervals, where they have any.
        told: the same in words.
    """

    method: Method | None
    seed: int | None
    x: Number
    y: Number
    told: str


def worth(summary: Summary) -> Column | None:
    """The column of how good samples are; None where nothing is finished."""
    columns = {column.key: column for column in summary.columns}
    return next((columns[key] for key in WORTH if key in columns), None)


def title(column: Column) -> str:
    """A column as an axis or a head names it."""
    return f"{column.title}, %" if column.share else column.title


def points(
    summary: Summary, records: Mapping[str, Any], methods: Sequence[Method], x: Column, y: Column
) -> list[Point]:
    """The start, every finished cell of the reported settings, and every method's mean."""
    found = []
    for line in summary.lines:
        if line.is_start and {x.key, y.key} <= line.numbers.keys():
            found.append(_point(None, None, START, [line.numbers[one.key] for one in (x, y)], (x, y)))
    for method in methods:
        line = method.line
        if not {x.key, y.key} <= line.numbers.keys():
            continue
        cells = done(records, method.name, line.setting)
        for cell in cells:
            tables = [table_of(column, [cell], records) for column in (x, y)]
            pair = [Number(column.estimate(table).value) for column, table in zip((x, y), tables, strict=True) if table]
            if len(pair) == 2:
                found.append(_point(method, cell["seed"], f"{method.name}, seed {cell['seed']}", pair, (x, y)))
        many = f"mean of {len(cells)} seeds" if len(cells) > 1 else "one seed"
        mean = [line.numbers[one.key] for one in (x, y)]
        found.append(_point(method, None, f"{method.name}, {many}", mean, (x, y)))
    return [point for point in found if point.x.value is not None and point.y.value is not None]


def _point(method: Method | None, seed: int | None, who: str, pair: list[Number], columns: Sequence[Column]) -> Point:
    said = [f"{title(column)} {number(one, column)[0]}" for column, one in zip(columns, pair, strict=True)]
    x, y = (_scaled(one, column) for column, one in zip(columns, pair, strict=True))
    return Point(method, seed, x, y, f"{who}: {'; '.join(reversed(said))}")


def _scaled(found: Number, column: Column) -> Number:
    scale = 100 if column.share else 1
    value, low, high = (None if one is None else scale * one for one in (found.value, found.low, found.high))
    return Number(value, low, high)


def frontier(some: Sequence[Point]) -> list[Point]:
    """Of the start and the means those that no other beats in both: as little x, and as much y. By x."""
    found: list[Point] = []
    for point in sorted(
        (one for one in some if one.seed is None), key=lambda one: (one.x.value or 0.0, -(one.y.value or 0.0))
    ):
        if not found or (point.y.value or 0.0) > (found[-1].y.value or 0.0):
            found.append(point)
    return found
