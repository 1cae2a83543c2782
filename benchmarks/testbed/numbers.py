"""From the runs of a record to estimates with their 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, variance
from typing import Any

from benchmarks.records import find
from xpo.train.intervals import Estimate, Z, mean_interval, paired_interval

Run = Mapping[str, Any]
Side = Mapping[str, Any]


def runs_of(record: Mapping[str, Any], side: Side) -> list[Run]:
    """The runs of a side, failed ones too, by seed."""
    seeds = sorted({run["seed"] for run in record["runs"]})
    wanted = {key: side[key] for key in ("algo", "settings")}
    found = [find(record, {**wanted, "seed": seed}) for seed in seeds]
    return [run for run in found if run is not None]


def pooled(found: Sequence[Estimate]) -> Estimate:
    """The mean over seeds. Its interval is the wider of two: from what is uncertain in each, and from their spread."""
    if not found:
        return Estimate(math.nan, math.nan, math.nan)
    k = len(found)
    mean = fmean(one.value for one in found)
    within = sum(((one.high - one.low) / 2) ** 2 for one in found) / k**2
    between = Z**2 * variance([one.value for one in found]) / k if k > 1 else 0.0
    half = math.sqrt(max(within, between)) if not math.isnan(within) else math.nan
    return Estimate(mean, mean - half, mean + half)


def difference(one: Estimate, other: Estimate) -> Estimate:
    """``one`` minus ``other``, as if they were independent."""
    half = math.hypot((one.high - one.low) / 2, (other.high - other.low) / 2)
    value = one.value - other.value
    return Estimate(value, value - half, value + half)


def beyond(found: Estimate, level: float) -> Estimate:
    """How far an estimate is above a level that is known."""
    return Estimate(found.value - level, found.low - level, found.high - level)


def change(run: Run, name: str) -> Estimate:
    """How much a row of the table of a run changed by training."""
    row = run["rows"][name]
    return _estimate(row["after"] - row["before"], row["interval_change"])


def after(run: Run, name: str) -> Estimate:
    """A row of the table of a run after training."""
    row = run["rows"][name]
    return _estimate(row["after"], row["interval_after"])


def mean(runs: Sequence[Run], name: str, when: str = "after") -> float:
    """A row of the tables, the mean over runs."""
    return fmean(run["rows"][name][when] for run in runs)


def per_list(run: Run, name: str) -> list[float]:
    """What was measured on each held-out list."""
    return [float(word) for word in run["ranking"][name].split()]


def ranked(runs: Sequence[Run], name: str) -> Estimate:
    """A measure of the held-out lists, over seeds."""
    return pooled([mean_interval(per_list(run, name)) for run in runs])


def ranked_better(runs: Sequence[Run], others: Sequence[Run], name: str) -> Estimate:
    """By how much ``runs`` are better at it than ``others``: list by list, over the seeds that both have."""
    by_seed = {run["seed"]: run for run in others}
    both = [(run, by_seed[run["seed"]]) for run in runs if run["seed"] in by_seed]
    return pooled([paired_interval(per_list(other, name), per_list(run, name)) for run, other in both])


def _estimate(value: float, interval: Sequence[float] | None) -> Estimate:
    low, high = interval or (math.nan, math.nan)
    return Estimate(value, low, high)
