"""GRPO and Dr. GRPO: their equations, advantages within a group, and the estimators of the KL."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import flat, hold, mean, near, ragged
from tests.zoo.rewarded import clipped, sampled, say
from xpo import SettingError
from xpo.api.math import k3
from xpo.testing import run_case

GRPO = {
    "as in the paper": {"beta": 0.04},
    "without reference": {"beta": 0.0, "eps_low": 0.1},
    "higher above": {"beta": 0.1, "eps_low": 0.1, "eps_high": 0.3},
    "mean over tokens": {"beta": 0.2, "aggregation": "token_mean", "eps_low": 0.15, "eps_high": 0.15},
    "fixed length": {"beta": 0.2, "aggregation": "fixed_length", "max_length": 12},
}


@pytest.mark.parametrize("hyper", GRPO.values(), ids=GRPO)
def test_grpo(hyper: dict[str, Any]) -> None:
    logps = ragged(5, 6)
    old, ref = near(logps, 6, 0.9), near(logps, 7, 1.5)
    advantages = [0.9, -1.1, 0.3, -0.2, 0.0, 1.4]
    low, high = hyper.get("eps_low", 0.2), hyper.get("eps_high", hyper.get("eps_low", 0.2))

    def tokens(policy: Mapping[str, Any]) -> list[list[tuple[float, bool, float]]]:
        return [
            [
                (*clipped(math.exp(p - o), a, low, high), math.exp(r - p) - 1 - (r - p))
                for p, o, r in zip(*row, strict=True)
            ]
            for *row, a in zip(policy["logps"], old, ref, advantages, strict=True)
        ]

    def loss(policy: Mapping[str, Any]) -> float:
        rows = [[value + hyper["beta"] * kl for value, _, kl in row] for row in tokens(policy)]
        how = hyper.get("aggregation", "sequence_mean")
        if how == "token_mean":
            return mean(flat(rows))
        return mean([sum(row) / (len(row) if how == "sequence_mean" else hyper["max_length"]) for row in rows])

    found = [token for row in tokens({"logps": logps}) for token in row]
    share = mean([float(outside) for _, outside, _ in found])
    assert 0 < share < 1
    metrics = {"clip_fraction": share} | ({"kl": mean([kl for *_, kl in found])} if hyper["beta"] else {})
    data = {"advantages": advantages, "old_logps": old, **({"ref_logps": ref} if hyper["beta"] else {})}
    hold({"loss": "grpo", "hyper": hyper, "policy": {"logps": logps}, "data": data}, loss, **metrics)


@pytest.mark.parametrize("scale", [True, False])
def test_grpo_standardises_rewards_within_a_group(scale: bool) -> None:
    rows = [[1.0, 0.0, 3.0], [2.0, 2.0, 2.0]]
    hyper = {"scale": scale, "eps": 1e-2}
    case = {"loss": "grpo_advantages", "kind": "function", "hyper": hyper, "data": {"rewards": rows}}
    deviation = math.sqrt(sum((r - 4 / 3) ** 2 for r in rows[0]) / 2)
    expected = [(r - 4 / 3) / (deviation + 1e-2 if scale else 1.0) for r in rows[0]]
    assert flat(run_case(case)["outputs"]["advantages"]) == pytest.approx([*expected, 0.0, 0.0, 0.0], abs=1e-12)


def test_one_sample_has_no_group_to_be_compared_with() -> None:
    batch = sampled([[1.0], [2.0]])
    with pytest.raises(SettingError, match="--num_generations"):
        tiny.algorithm("grpo").experience(batch, say(batch), None)


def test_dr_grpo_pulls_a_token_alike_whatever_the_length_of_its_completion() -> None:
    logps = [[-1.0], [-1.0] * 5]
    case = {"policy": {"logps": logps}, "data": {"advantages": [1.0, 1.0], "old_logps": logps}}

    def pulls(aggregation: str) -> list[float]:
        hyper = {"beta": 0.0, "aggregation": aggregation, "max_length": 8}
        return flat(run_case({"loss": "grpo", "hyper": hyper, **case})["grad"]["logps"])

    assert pulls("fixed_length") == pytest.approx([-1 / 16] * 6)
    assert pulls("token_mean") == pytest.approx([-1 / 6] * 6)
    assert pulls("sequence_mean") == pytest.approx([-1 / 2] + [-1 / 10] * 5)


def test_kl_estimators() -> None:
    logps = ragged(8, 3)
    ref = near(logps, 9, 2.0)
    data = {"logps": logps, "ref_logps": ref}
    found = run_case({"loss": "kl_estimators", "kind": "function", "data": data})["outputs"]
    ratios = [r - p for p, r in zip(flat(logps), flat(ref), strict=True)]
    assert flat(found["k1"]) == pytest.approx([-d for d in ratios], abs=1e-12)
    assert flat(found["k2"]) == pytest.approx([d * d / 2 for d in ratios], abs=1e-12)
    assert flat(found["k3"]) == pytest.approx([math.exp(d) - 1 - d for d in ratios], abs=1e-12)


def test_the_third_estimator_is_finite_however_far_the_policy_has_gone() -> None:
    logps = torch.tensor([-500.0, -0.1, -1e-6], requires_grad=True)
    found = k3(logps, torch.tensor([-0.1, -500.0, -1e-6]))
    found.sum().backward()
    assert found.isfinite().all()
    assert logps.grad is not None
    assert logps.grad.isfinite().all()
