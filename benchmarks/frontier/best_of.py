"""The best of n samples of the start: what can be had without training, and how far from the start that is at most."""

from __future__ import annotations

import math
from collections.abc import Sequence


def best_of(rewards: Sequence[float], n: int) -> float:
    """Mean over all choices of ``n`` of these rewards of the highest in it: of n samples the expected best, unbiased.

    Raises:
        ValueError: there are fewer than ``n``.
    """
    if not 1 <= n <= len(rewards):
        raise ValueError(f"the best of {n} cannot be told from {len(rewards)} samples")
    # Of the choices of n, those whose highest is the k-th lowest take their other n - 1 from the k - 1 below it.
    choices = math.comb(len(rewards), n)
    return sum(math.comb(below, n - 1) / choices * reward for below, reward in enumerate(sorted(rewards)))


def kl_bound(n: int) -> float:
    """log n - (n - 1) / n nats, an upper bound of the KL of best-of-n sampling to what is sampled from.

    The bound is near where every single completion is unlikely (Beirami et al. 2024, arXiv 2401.01879).
    """
    return math.log(n) - (n - 1) / n
