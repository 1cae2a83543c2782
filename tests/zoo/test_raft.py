"""RAFT: which samples it selects, and the mean over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import flat, hold, mean, ragged
from tests.zoo.rewarded import sampled, say
from xpo.api.loss import counts, reduce

#: The best of the second group comes twice, the lengths of those selected differ.
REWARDS = [[0.1, 0.9, -0.4, 0.3], [0.5, 0.2, 0.5], [-1.0, -3.0]]
BEST = (1, 0, 0)


@pytest.mark.parametrize("how", ["token", "sequence", "sum"])
def test_raft(how: str) -> None:
    completions = [ragged(20 + row, len(some)) for row, some in enumerate(REWARDS)]

    def loss(policy: Mapping[str, Any]) -> float:
        best = [row[k] for row, k in zip(policy["completions"], BEST, strict=True)]
        if how == "token":
            return -mean(flat(best))
        return -mean([sum(row) / (len(row) if how == "sequence" else 1) for row in best])

    case = {"loss": "raft", "hyper": {"nll": how}, "policy": {"completions": completions}, "data": {"rewards": REWARDS}}
    hold(case, loss, nll_loss=loss({"completions": completions}), **{"reward/best": mean([0.9, 0.5, -1.0])})


@pytest.mark.parametrize("how", ["token", "sequence", "sum"])
def test_the_mean_over_selected_completions_is_that_of_the_step(how: str) -> None:
    """Over all its micro-batches and ranks: each loses its own number of tokens to the selection."""
    method = tiny.algorithm("raft", nll=how)
    halves = [sampled([[1.0, 2.0]], [[7, 1]]), sampled([[3.0, 1.0], [2.0, 0.0]], [[2, 4], [5, 1]])]
    mine: list[torch.Tensor] = []
    for half in halves:  # what each rank adds
        object.__setattr__(half, "reduce", lambda tensor: mine.append(tensor) or tensor)
        method.experience(half, say(half), None)
    total = 0.0
    everything: dict[Any, float] = {}
    for half in halves:
        for key, count in counts(half).items():
            everything[key] = everything.get(key, 0.0) + count
    for number, half in enumerate(halves):
        object.__setattr__(half, "reduce", lambda _: sum(mine))
        half.columns.update(method.experience(half, say(half), None))
        total += float(reduce(method.loss(half, say(half, -1.0 - number), None), half, everything)[0])
    lengths, each = (1, 2, 5), (1.0, 2.0, 2.0)
    expected = {
        "token": sum(n * value for n, value in zip(lengths, each, strict=True)) / 8,
        "sequence": mean(list(each)),
        "sum": sum(n * value for n, value in zip(lengths, each, strict=True)) / 3,
    }
    assert total == pytest.approx(expected[how])
