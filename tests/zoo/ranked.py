"""Lists of scored completions, with what a policy and a reference say of them, for the tests of methods of lists."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from tests import tiny
from tests.zoo.byhand import hold, mean, near, ragged
from xpo import Batch, Completion, Group, Scores
from xpo.api.loss import counts, reduce

Rows = list[list[float]]
SIZES = (4, 2, 5, 3)
#: The second list has a tie in the middle of the ranking, the third one in front; the last has no order.
SCORES = [[0.9, 0.1, 0.55, 0.3], [0.2, 0.8], [0.45, 0.7, 0.1, 0.45, 0.2], [0.6, 0.2, 0.9]]
WITH_TIES = [[1.0, 0.5, 0.5, 0.0], [0.2, 0.8], [0.7, 0.7, 0.1, 0.45, 0.2], [0.3, 0.3, 0.3]]


def case(
    loss: str, hyper: dict[str, Any], scores: Rows = SCORES, *, spread: float = 0.5, **data: Any
) -> dict[str, Any]:
    completions = [ragged(10 + index, len(row), longest=4) for index, row in enumerate(scores)]
    return {
        "loss": loss,
        "hyper": hyper,
        "policy": {"completions": completions},
        "data": {"ref_completions": near(completions, 9, spread), "rewards": scores, **data},
    }


def sums(rows: Any) -> Rows:
    return [[sum(tokens) for tokens in row] for row in rows]


def means(rows: Any) -> Rows:
    return [[sum(tokens) / len(tokens) for tokens in row] for row in rows]


def ratios(given: dict[str, Any], policy: dict[str, Any]) -> Rows:
    both = zip(sums(policy["completions"]), sums(given["data"]["ref_completions"]), strict=True)
    return [[a - b for a, b in zip(*rows, strict=True)] for rows in both]


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value - max(values)) for value in values)
    return [math.exp(value - max(values)) / total for value in values]


def ordered(scores: list[float]) -> list[int]:
    """Indices from the best to the worst, ties in the order of the data."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def pairs_of(scores: list[float]) -> list[tuple[int, int]]:
    return [(i, j) for i in range(len(scores)) for j in range(len(scores)) if scores[i] > scores[j]]


def holds(
    given: dict[str, Any], of_list: Callable[..., float], read: Callable[..., Rows] | None = None, **metrics: float
) -> None:
    """``of_list`` of what a list's completions say and its scores is the loss of a list; lists count alike."""
    scores = given["data"]["rewards"]

    def loss(policy: dict[str, Any]) -> float:
        said = ratios(given, policy) if read is None else read(policy["completions"])
        return mean([of_list(*row) for row in zip(said, scores, strict=True)])

    hold(given, loss, **metrics)


def listed(scores: list[float | None], row: int = 0) -> Group:
    return Group([1], [Completion([2 + k, 9], score=score) for k, score in enumerate(scores)], row=row)


def say(
    groups: list[Group], logratios: list[float], dtype: torch.dtype = torch.float64
) -> tuple[Batch, Scores, Scores]:
    """A batch whose completions have the given log-ratios."""
    batch = Batch.of(groups, dtype=dtype)
    logps = torch.zeros(batch.mask.shape, dtype=dtype)
    logps[:, 0] = torch.tensor(logratios, dtype=dtype)
    return batch, Scores(logps.requires_grad_(), batch.mask), Scores(torch.zeros_like(logps), batch.mask)


def slopes(name: str, groups: list[Group], logratios: list[float], **settings: Any) -> list[float]:
    """d loss / d S of every completion."""
    algorithm = tiny.algorithm(name, **settings)
    batch, policy, reference = say(algorithm.collate(groups), logratios)
    value, _ = reduce(algorithm.loss(batch, policy, reference), batch, counts(batch))
    value.backward()
    return policy.logps.grad[:, 0].tolist()


RELATIVE = ("lipo", "dpo_pl", "listnet", "all_pairs", "exo_list", "info_nca", "nca_list", "d2o")
ALL = (*RELATIVE, "rrhf", "pro")
#: Of these a list of equal scores has a target of its own: that nothing is preferred.
WITH_TARGETS = ("listnet", "exo_list", "info_nca", "nca_list")
