"""Tables of numbers with 95 % intervals, where the best of a column and what equals it are marked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from xpo.train.intervals import Estimate

#: Two lines are told apart where a test of their difference, corrected for the number of others, gets below this.
ALPHA = 0.05
#: What stands behind a number that cannot be told from the best.
EQUAL = "≈"

Cells: TypeAlias = list[tuple[str, str]]  # a row: (text, mark)


@dataclass(frozen=True)
class Number:
    """A cell of a table.

    Attributes:
        value, low, high: the mean and its 95 % interval; None where there is none.
        mark: ``best`` of its column, ``equal`` where it cannot be told from the best, or empty.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    mark: str = ""

    @classmethod
    def of(cls, found: Estimate, mark: str = "") -> Number:
        """A number of an estimate, whose NaN are None."""
        value, low, high = (one if math.isfinite(one) else None for one in found)
        return cls(value, low, high, mark)


def marks(means: Mapping[str, float], p: Callable[[str, str], float | None]) -> dict[str, str]:
    """The best of a column, and those that a paired test cannot tell from it.

    Args:
        means: line -> what the column holds, the highest being the best.
        p: of the test that two lines are equal, NaN where it cannot tell; None where they have nothing in common.
    """
    top = max(means.values())
    best = [name for name, mean in means.items() if mean == top]
    found = dict.fromkeys(best, "best")
    others = [name for name in means if name not in found]
    for name in others:
        value = p(best[0], name)
        # Bonferroni: as many tests as there are others.
        if value is not None and (math.isnan(value) or value * len(others) >= ALPHA):
            found[name] = "equal"
    return found


def grid(rows: Sequence[Cells]) -> list[str]:
    """A table in Markdown, header first, line by line."""
    lines = ["| " + " | ".join(map(_markdown, row)) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def precise(value: float | None) -> str:
    """As many digits as files need: the last ones of a sum may differ between machines."""
    return "" if value is None or not math.isfinite(value) else f"{value:.10g}"


def _markdown(cell: tuple[str, str]) -> str:
    text, mark = cell
    text = text.replace("|", "\\|")
    return f"**{text}**" if mark == "best" and text else f"{text} {EQUAL}" if mark == "equal" else text
