"""The tables as text: cells for the terminal, Markdown and CSV. All say the same."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from xpo.assess.columns import Column
from xpo.assess.summary import Line, Summary
from xpo.train.intervals import Estimate
from xpo.train.marked import EQUAL, Cells, Number, grid, precise

LEGEND = (
    f"Agreement with the labels in per cent, a tie half, with 95 % intervals. Bold: the best of a column; {EQUAL}: not "
    "distinguishable from it (paired t test over rows, p ≥ 0.05 after Bonferroni)."
)
#: Subsets that a terminal shows as columns; more are shown as lines.
WIDE = 5


def agreement(summary: Summary, wide: bool = True) -> list[list[Cells]]:
    """The tables of agreement, header first: a line a scorer; of many subsets, unless ``wide``, a line a subset."""
    subsets = [column for column in summary.columns if column.key.startswith("subset/")]
    apart = not wide and len(subsets) > WIDE
    columns = [column for column in summary.columns if not (apart and column in subsets)]
    head: Cells = [("scorer", ""), *((_head(column, summary), "") for column in columns), ("ties", "")]
    rows = [head]
    for line in summary.lines:
        row: Cells = [(line.name, "")]
        row += [cell(line.numbers[column.key]) for column in columns]
        rows.append([*row, (f"{line.ties}/{line.of}", "")])
    if not apart:
        return [rows]
    turned: list[Cells] = [[("subset", ""), *((line.name, "") for line in summary.lines)]]
    for column in subsets:
        turned.append([(_head(column, summary), ""), *(cell(line.numbers[column.key]) for line in summary.lines)])
    return [rows, turned]


def lengths(summary: Summary) -> list[Cells]:
    """The table of the length check, header first."""
    rows: list[Cells] = [
        [
            (text, "")
            for text in (
                "scorer",
                *(f"better is {name}" for name in summary.lines[0].length.classes),
                "at equal length",
                "prefers the longer",
                "correlation",
            )
        ]
    ]
    for line in summary.lines:
        check = line.length
        cells = [f"{percent(one)} (n {count})" if count else "" for one, count in check.classes.values()]
        told = [percent(check.controlled), percent(check.prefers_longer), shown(check.correlation, 1, 2)]
        rows.append([(text, "") for text in (line.name, *cells, *told)])
    return rows


def positions(summary: Summary) -> list[Cells]:
    """The table of the position check, header first; empty where nobody was asked to compare."""
    if not any(line.position for line in summary.lines):
        return []
    head = ("scorer", "flips with the order", "prefers the first", "better shown first", "better shown second")
    rows: list[Cells] = [[(text, "") for text in head]]
    for line in summary.lines:
        check = line.position
        if line.baseline:
            continue
        if check is None:
            rows.append([(line.name, ""), ("not affected: it reads one answer at a time", ""), *[("", "")] * 3])
            continue
        told = (check.flips, check.first, check.better_first, check.better_second)
        rows.append([(line.name, ""), *((percent(one), "") for one in told)])
    return rows


def scorers(summary: Summary) -> list[str]:
    """How each line scores, a sentence each."""
    found = []
    for line in summary.lines:
        reference = f"; reference: {line.reference}" if line.reference else ""
        found.append(f"{line.name}: {line.how}{reference}")
    return found


def markdown(summary: Summary, heading: Sequence[str]) -> str:
    """``eval.md``."""
    parts = ["# Preference accuracy", "", *heading, ""]
    for rows in agreement(summary):
        parts += [*grid(rows), ""]
    parts += [LEGEND, "", *(f"* {one}" for one in scorers(summary)), ""]
    parts += ["## Length", "", *grid(lengths(summary)), "", length_legend(summary), ""]
    parts += ["## Position", ""]
    parts += [*grid(positions(summary)), ""] if positions(summary) else [UNAFFECTED, ""]
    if summary.notes:
        parts += ["## Notes", "", *(f"* {note}" for note in summary.notes), ""]
    return "\n".join(parts)


UNAFFECTED = "Not affected: every scorer here reads one answer at a time, so there is no order that could matter."


def length_legend(summary: Summary) -> str:
    """What the table of lengths says."""
    return (
        f"Lengths in {summary.unit}. Answers within 10 % are about equal. At equal length: from a logistic regression "
        "of agreement on the difference in length. Correlation: of how far the better answer is ahead with how much "
        "longer it is."
    )


def comma_separated(summary: Summary) -> str:
    """``eval.csv``: a row a scorer; shares from 0 to 1."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["scorer", "how", "reference"]
    for column in summary.columns:
        head += [f"{column.key}{end}" for end in ("", "_low", "_high", "_mark")]
    head += [f"n/{name}" for name in summary.counts]
    head += ["preferences", "ties", "undecided"]
    checks = [*(f"better_{name.replace(' ', '_')}" for name in summary.lines[0].length.classes)]
    checks += ["at_equal_length", "prefers_longer", "length_correlation"]
    orders = ["flips", "prefers_first", "better_first", "better_second"]
    head += [f"{name}{end}" for name in (*checks, *orders) for end in ("", "_low", "_high")]
    writer.writerow(head)
    for line in summary.lines:
        writer.writerow(_row(line, summary))
    return out.getvalue()


def _row(line: Line, summary: Summary) -> list[Any]:
    row: list[Any] = [line.name, line.how, line.reference or ""]
    for column in summary.columns:
        number = line.numbers[column.key]
        row += [*(precise(one) for one in (number.value, number.low, number.high)), number.mark]
    row += [line.counts.get(name, 0) for name in summary.counts]
    row += [line.of, line.ties, line.undecided]
    check, order = line.length, line.position
    told = [*(one for one, _ in check.classes.values()), check.controlled, check.prefers_longer, check.correlation]
    nothing = Estimate(math.nan, math.nan, math.nan)
    told += [order.flips, order.first, order.better_first, order.better_second] if order else [nothing] * 4
    return [*row, *(precise(one) for estimate in told for one in estimate)]


def cell(number: Number) -> tuple[str, str]:
    """A share in per cent with its interval, and its mark."""
    if number.value is None:
        return "", ""
    known = [math.nan if one is None else one for one in (number.value, number.low, number.high)]
    return percent(Estimate(*known)), number.mark


def percent(found: Estimate) -> str:
    """``71.3 [68.1, 74.4]``; empty where there is nothing."""
    return shown(found, 100, 1)


def shown(found: Estimate, scale: float, digits: int) -> str:
    """An estimate with its interval; empty where there is nothing."""
    if not math.isfinite(found.value):
        return ""
    value = f"{scale * found.value:.{digits}f}"
    ends = found.interval
    return value if ends is None else f"{value} [{scale * ends[0]:.{digits}f}, {scale * ends[1]:.{digits}f}]"


def _head(column: Column, summary: Summary) -> str:
    name = column.key.removeprefix("subset/")
    if column.key.startswith("subset/"):
        return f"{column.title} (n {summary.counts[name]})"
    return f"{column.title} (n {sum(summary.counts.values())})" if column.pooled else column.title
