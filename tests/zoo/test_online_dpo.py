"""Online DPO: its equation, ties, and which of several samples meet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import hold, mean, near, ragged, softplus
from tests.zoo.compared import LOSSES, sums
from xpo import Batch, Completion, Group, Scores, SettingError
from xpo.testing import run_case

#: The second is a tie, which the first sample wins; the third is one once the missing end is paid for.
REWARDS = ([0.5, -0.2, 2.0, 0.1], [0.1, -0.2, 1.0, 0.7])
ENDED = ([True, True, False, True], [True, True, True, False])
FIRST = {0.0: [True, True, True, False], 1.0: [True, True, True, True], 1.5: [True, True, False, True]}


@pytest.mark.parametrize("penalty", FIRST)
@pytest.mark.parametrize("hyper", [{}, {"beta": 0.7}, {"beta": 1.3, "loss_type": "ipo"}], ids=str)
def test_online_dpo(hyper: dict[str, Any], penalty: float) -> None:
    a, b = ragged(121, 4), ragged(122, 4)
    ref_a, ref_b = near(a, 123, 2.0), near(b, 124, 2.0)
    beta, of_margin = hyper.get("beta", 0.1), LOSSES[hyper.get("loss_type", "sigmoid")]

    def margins(policy: Mapping[str, Any]) -> list[float]:
        rows = zip(sums(policy["a"]), sums(ref_a), sums(policy["b"]), sums(ref_b), FIRST[penalty], strict=True)
        return [((p - r) - (q - s)) * (1 if first else -1) for p, r, q, s, first in rows]

    data = {"ref_a": ref_a, "ref_b": ref_b, **dict(zip(("reward_a", "reward_b"), REWARDS, strict=True))}
    data |= dict(zip(("eos_a", "eos_b"), ENDED, strict=True))
    policy = {"a": a, "b": b}
    hold(
        {
            "loss": "online_dpo",
            "hyper": {**hyper, "missing_eos_penalty": penalty},
            "policy": policy,
            "data": data,
        },
        lambda policy: mean([of_margin(margin, beta) for margin in margins(policy)]),
        first_wins=mean([float(first) for first in FIRST[penalty]]),
        **{"rewards/margins": mean([beta * margin for margin in margins(policy)]), "identical": 0.0},
    )


@pytest.mark.parametrize("loss_type", LOSSES)
def test_samples_that_are_the_same_pull_nothing_and_count(loss_type: str) -> None:
    """Without the exception a pair of equal texts has ln 2, or a square, and noise of two layouts as its pull."""
    case = {
        "loss": "online_dpo",
        "hyper": {"beta": 0.5, "loss_type": loss_type},
        "policy": {"a": [[-1.0, -2.0], [-1.0, -0.5], [-1.0]], "b": [[-1.0, -2.5], [-3.0], [-1.0, -1.0]]},
        "data": {
            "ref_a": [[-1.0, -1.0], [-1.0, -1.0], [-2.0]],
            "ref_b": [[-1.0, -1.0], [-1.0], [-2.0, -1.0]],
            "reward_a": [1.0, 1.0, 0.0],
            "reward_b": [0.0, 0.0, 0.0],
            "a_ids": [[3, 4], [3, 4], [0]],
            "b_ids": [[3, 4], [5], [0, 0]],  # a token of id 0 more is another text
        },
    }
    found = run_case(case)
    assert found["metrics"]["identical"] == pytest.approx(1 / 3)
    assert found["grad"]["a"][0] == found["grad"]["b"][0] == [0.0, 0.0]
    margins = [0.5 - -2.0, 1.0 - 1.0]
    assert found["loss"] == pytest.approx(sum(LOSSES[loss_type](margin, 0.5) for margin in margins) / 3)
    assert found["metrics"]["rewards/margins"] == pytest.approx(0.5 * mean(margins))


def test_of_more_samples_the_best_meets_the_worst() -> None:
    completions = [ragged(131, 4), ragged(132, 3)]
    ref = near(completions, 133, 2.0)
    rewards = [[0.1, 0.9, -1.0, 0.9], [0.3, 0.2, 0.2]]  # the first of the best, the last of the worst
    pairs = [(1, 2), (0, 2)]

    def loss(policy: Mapping[str, Any]) -> float:
        ratios = [
            [sum(p) - sum(r) for p, r in zip(*rows, strict=True)]
            for rows in zip(policy["completions"], ref, strict=True)
        ]
        return mean(
            [softplus(-0.1 * (row[best] - row[worst])) for row, (best, worst) in zip(ratios, pairs, strict=True)]
        )

    data = {"ref_completions": ref, "rewards": rewards}
    hold(
        {"loss": "online_dpo", "policy": {"completions": completions}, "data": data}, loss, first_wins=0.5
    )  # in the second prompt


def test_a_single_sample_has_nothing_to_be_compared_with() -> None:
    batch = Batch.of([Group([1], [Completion([2], score=1.0)])])
    said = Scores(torch.zeros(1, 1), batch.mask)
    with pytest.raises(SettingError, match="--num_generations 2"):
        tiny.algorithm("online_dpo").loss(batch, said, said)
