"""What the tests of methods share that compare completions sampled while training."""

from __future__ import annotations

from tests.zoo.byhand import softplus
from xpo import Completion, Group

#: Win rates of some samples.
WINS = [0.9, 0.2, 0.5, 0.7, 0.05]
#: loss_type -> loss of a margin.
LOSSES = {
    "sigmoid": lambda margin, beta: softplus(-beta * margin),
    "ipo": lambda margin, beta: (margin - 1 / (2 * beta)) ** 2,
}


def sums(rows: list[list[float]]) -> list[float]:
    return [sum(row) for row in rows]


def pair(target: float | None = None, scores: tuple[float | None, float | None] = (None, None)) -> Group:
    """One token against the same, with what is known of how much better the first is."""
    completions = [
        Completion([2], role, score=score) for role, score in zip(("chosen", "rejected"), scores, strict=True)
    ]
    return Group([1], completions, [(0, 1)], columns={} if target is None else {"target": target})
