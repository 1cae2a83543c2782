"""``Course``: how a logged number went over a run, and whether that is more than noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

#: Log entries that a course needs, and standard errors that a change must be from nothing.
ENTRIES, ERRORS = 6, 3.0


@dataclass(frozen=True)
class Course:
    """Means over the first and the last fifth of the entries of a history.

    Attributes:
        error: standard error of their difference, from the differences of neighbours, which a trend hardly touches.
    """

    first: float
    last: float
    error: float

    @property
    def change(self) -> float:
        return self.last - self.first

    @property
    def certain(self) -> bool:
        """Whether the change is more than noise."""
        return abs(self.change) > ERRORS * self.error

    @classmethod
    def of(cls, history: Sequence[Mapping[str, Any]], key: str) -> Course | None:
        """None for fewer entries than say anything."""
        found = [entry[key] for entry in history if "loss" in entry and isinstance(entry.get(key), int | float)]
        values = [float(value) for value in found if math.isfinite(value)]
        if len(values) < ENTRIES:
            return None
        part = max(1, len(values) // 5)
        squares = [(b - a) ** 2 for a, b in pairwise(values)]
        # Two entries differ with twice the variance of one, as the means of two parts do with that of a mean.
        error = math.sqrt(sum(squares) / len(squares) / part)
        return cls(sum(values[:part]) / part, sum(values[-part:]) / part, error)
