"""From the runs of a record to points over seeds, and from points to the reward a method has at a KL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.frontier.methods import BEST_OF
from benchmarks.testbed.numbers import pooled
from xpo.train.intervals import Estimate

#: A KL is told about where a method has points on either side of it, this many times away at most.
NEAR = 2.0


@dataclass(frozen=True)
class Point:
    """A policy, over seeds.

    Attributes:
        label: its setting, or its n.
        step: of training; None for best-of-n.
        seeds: how many runs it rests on.
        kl, reward: their means; the KL of best-of-n is an upper bound without interval.
        tokens: mean length of a completion; None for best-of-n.
        last: it is the end of its run.
    """

    label: str
    step: int | None
    seeds: int
    kl: Estimate
    reward: Estimate
    tokens: float | None = None
    last: bool = True


def points_of(record: Mapping[str, Any], method: str) -> list[Point]:
    """All points of a method, setting by setting and in the order of training; the start is none of them."""
    found: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for run in record["runs"]:
        if run["method"] == method and "failed" not in run:
            for one in run["points"]:
                label = f"n = {one['n']}" if "n" in one else _label(run)
                if one.get("n") != 1:
                    found.setdefault((label, one.get("step", 0)), []).append(one)
    ends = dict(sorted(found))
    return [
        Point(
            label,
            step or None,
            len(some),
            pooled([_estimate(one["kl"]) for one in some]),
            pooled([_estimate(one["reward"]) for one in some]),
            sum(one["tokens"] for one in some) / len(some) if "tokens" in some[0] else None,
            last=step == ends[label],
        )
        for (label, step), some in found.items()
    ]


def start_of(record: Mapping[str, Any]) -> Estimate | None:
    """The reward of the start: the best of one sample. None where that was not measured."""
    runs = [run for run in record["runs"] if run["method"] == BEST_OF and "failed" not in run]
    return (
        pooled([_estimate(one["reward"]) for run in runs for one in run["points"] if one["n"] == 1]) if runs else None
    )


def failures(record: Mapping[str, Any], method: str) -> Iterator[tuple[str, str]]:
    """(setting and seed, reason) of the runs that failed."""
    for run in record["runs"]:
        if run["method"] == method and "failed" in run:
            yield ", ".join(filter(None, [_label(run), f"seed {run['seed']}"])), run["failed"]


def front(points: Sequence[Point]) -> list[Point]:
    """The points that no other beats, which would have as much reward at no more KL; by KL."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: (one.kl.value, -one.reward.value)):
        if not found or point.reward.value > found[-1].reward.value:
            found.append(point)
    return found


def reward_at(points: Sequence[Point], kl: float) -> Estimate | None:
    """The reward that a method has at a KL: on the line through its front, which beyond its last point is level.

    Half the width of the interval goes along the line too, as if both ends were wrong together.

    Returns:
        None where the method has no points around.
    """
    around = [one.kl.value for one in points]
    below, above = any(kl / NEAR <= one <= kl for one in around), any(kl <= one <= kl * NEAR for one in around)
    if not (below and above):
        return None
    line = front(points)
    lower = max((one for one in line if one.kl.value <= kl), key=lambda one: one.kl.value)
    upper = min((one for one in line if one.kl.value > kl), key=lambda one: one.kl.value, default=lower)
    width = upper.kl.value - lower.kl.value
    share = (kl - lower.kl.value) / width if width else 0.0

    def between(a: float, b: float) -> float:
        return (1 - share) * a + share * b

    value = between(lower.reward.value, upper.reward.value)
    half = between(*((one.reward.high - one.reward.low) / 2 for one in (lower, upper)))
    return Estimate(value, value - half, value + half)


def _label(run: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in run["setting"].items())


def _estimate(found: Mapping[str, Any]) -> Estimate:
    return Estimate(found["value"], found.get("low", found["value"]), found.get("high", found["value"]))
