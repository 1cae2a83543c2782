"""Samples with rewards, for the tests of the methods that learn from them as they are."""

from __future__ import annotations

import random

import torch

from tests import tiny
from xpo import Batch, Completion, Group, Scores

METHODS = ("reinforce", "grpo", "raft", "ppo")


def numbers(like: list[list[float]], seed: int, size: float = 1.0) -> list[list[float]]:
    rng = random.Random(seed)
    return [[round(size * rng.uniform(-1, 1), 4) for _ in row] for row in like]


def clipped(ratio: float, advantage: float, low: float, high: float) -> tuple[float, bool]:
    """The surrogate, and whether it was the clipped side that counted."""
    plain, other = -advantage * ratio, -advantage * min(max(ratio, 1 - low), 1 + high)
    return max(plain, other), other > plain


def sampled(rewards: list[list[float]], lengths: list[list[int]] | None = None, finished: bool = True) -> Batch:
    """Groups of rewarded completions, in float64."""
    groups = [
        Group(
            [1 + row],
            [
                Completion([2] * (1 if lengths is None else lengths[row][k]), score=reward, finished=finished)
                for k, reward in enumerate(some)
            ],
            row=row,
        )
        for row, some in enumerate(rewards)
    ]
    return Batch.of(groups, dtype=torch.float64)


def say(batch: Batch, logps: float = -1.0, values: float | None = None) -> Scores:
    """The same log-probability, and the same value, at every token."""
    real = batch.mask.double()
    return Scores(logps * real, batch.mask, values=None if values is None else values * real)


def logs(run: tiny.Fit, key: str) -> list[float]:
    return [entry[key] for entry in run.trainer.state.log_history if key in entry]
