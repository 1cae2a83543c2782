"""What is made of a judge's opinions: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def preferred(first: float, second: float) -> float:
    """Probability that the first is preferred, of log-probabilities of the two, renormalised over exactly these."""
    odds = first - second
    return 1.0 / (1.0 + math.exp(-odds)) if odds >= 0 else math.exp(odds) / (1.0 + math.exp(odds))


def in_both_orders(as_asked: float, turned: float) -> float:
    """Probability that A is preferred, without what is only liking for the first or the second place.

    Args:
        as_asked: probability that the one shown first is preferred, with A shown first.
        turned: the same with B shown first.
    """
    return 0.5 * (as_asked + 1.0 - turned)


def mean_score(samples: Sequence[float | None]) -> float | None:
    """Mean of the judgements that could be read; None, which is not 0, where none could."""
    read = [sample for sample in samples if sample is not None]
    return math.fsum(read) / len(read) if read else None


def rlaif_debias(order_ab: Sequence[Sequence[float]], order_ba: Sequence[Sequence[float]]) -> Mapping[str, list[float]]:
    """Probability ``p_a`` that A is preferred, for every question (Lee et al. 2023, RLAIF, arXiv 2309.00267).

    Args:
        order_ab: log-probabilities of the answers "1" and "2" with A shown first.
        order_ba: the same with B shown first.
    """
    both = zip(order_ab, order_ba, strict=True)
    return {"p_a": [in_both_orders(preferred(*ab), preferred(*ba)) for ab, ba in both]}


def judge_average(samples: Sequence[Sequence[float | None]]) -> Mapping[str, list[float | None]]:
    """Mean ``scores`` of several judgements of each answer, None for those that could not be read.

    As in self-rewarding language models (Yuan et al. 2024, arXiv 2401.10020).
    """
    return {"scores": [mean_score(some) for some in samples]}
