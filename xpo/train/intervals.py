"""Means, win rates and paired differences with their 95% intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Z = 1.959963984540054  # the 97.5% quantile of the standard normal distribution


class Estimate(NamedTuple):
    """A number and its 95% interval; NaN where the data cannot say."""

    value: float
    low: float
    high: float

    @property
    def interval(self) -> tuple[float, float] | None:
        """``(low, high)``, or None when there is no interval, as for a single observation."""
        return (self.low, self.high) if math.isfinite(self.low) and math.isfinite(self.high) else None


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean with the normal interval: mean -/+ 1.96 s / sqrt(n), where s divides by n - 1.

    Fewer than two values have no interval, no value has no mean either.
    """
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan)
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, math.nan, math.nan)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = Z * math.sqrt(variance / n)
    return Estimate(mean, mean - half, mean + half)


def paired_interval(before: Sequence[float], after: Sequence[float]) -> Estimate:
    """Mean of ``after - before`` with its interval, item by item: what both have in common cancels.

    Raises:
        ValueError: the two are not about the same items.
    """
    if len(before) != len(after):
        raise ValueError(f"paired values differ in number: {len(before)} before, {len(after)} after")
    return mean_interval([late - early for early, late in zip(before, after, strict=True)])


def win_interval(wins: float, losses: float, ties: float = 0) -> Estimate:
    """Win rate, a tie counting as half a win, with the Wilson interval over all comparisons.

    Halves vary less than wins and losses do, so with ties the interval is, if anything, too wide.
    """
    n = wins + losses + ties
    if n <= 0:
        return Estimate(math.nan, math.nan, math.nan)
    rate = (wins + 0.5 * ties) / n
    scale = 1.0 + Z * Z / n
    centre = (rate + Z * Z / (2 * n)) / scale
    half = Z / scale * math.sqrt(rate * (1.0 - rate) / n + Z * Z / (4 * n * n))
    # Rounding may put the bounds a hair outside [0, 1] or inside the rate itself at 0 and 1.
    return Estimate(rate, max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half)))
