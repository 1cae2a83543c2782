"""REINFORCE: its equation, and the moving baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import flat, hold, mean, near, ragged
from tests.zoo.rewarded import sampled, say
from xpo.testing import run_case

ADVANTAGES = [1.3, -0.4, 0.0, 0.7, -2.1]


@pytest.mark.parametrize("reused", [False, True])
def test_reinforce(reused: bool) -> None:
    logps = ragged(1, 5)
    old = near(logps, 2)
    ratios = [math.exp(sum(a) - sum(b)) if reused else 1.0 for a, b in zip(logps, old, strict=True)]
    assert not reused or min(ratios) < 1 < max(ratios)

    def loss(policy: Mapping[str, Any]) -> float:
        return mean(
            [-a * min(r, 1.0) * sum(row) for a, r, row in zip(ADVANTAGES, ratios, policy["logps"], strict=True)]
        )

    data = {"advantages": ADVANTAGES, **({"old_logps": old} if reused else {})}
    hold({"loss": "reinforce", "policy": {"logps": logps}, "data": data}, loss, ratio=mean(ratios))


def test_reinforce_has_the_gradient_of_rloo_at_ratio_1() -> None:
    logps = ragged(3, 5)
    case = {"hyper": {}, "policy": {"logps": logps}, "data": {"advantages": ADVANTAGES, "old_logps": logps}}
    ours, other = (run_case({"loss": name, **case})["grad"]["logps"] for name in ("reinforce", "rloo"))
    assert flat(ours) == pytest.approx(flat(other), abs=1e-12)


def test_the_baseline_starts_as_the_first_mean_and_follows_without_seeing_the_step() -> None:
    method = tiny.algorithm("reinforce", beta=0.0, baseline_momentum=0.75)
    steps = [sampled([[1.0], [3.0]]), sampled([[10.0], [0.0]]), sampled([[4.0], [4.0]])]
    found = [method.experience(batch, say(batch), None)["advantages"].tolist() for batch in steps]
    second, third = 2.0, 0.75 * 2.0 + 0.25 * 5.0
    assert found == [[-1.0, 1.0], [10.0 - second, 0.0 - second], [4.0 - third, 4.0 - third]]
    assert method.state_dict() == {"baseline": 0.75 * third + 0.25 * 4.0}


def test_the_baseline_survives_a_checkpoint_and_evaluation_does_not_move_it() -> None:
    method, batch = tiny.algorithm("reinforce", beta=0.0), sampled([[1.0], [3.0]])
    with torch.no_grad():
        method.experience(batch, say(batch), None)
    assert method.state_dict() == {}
    method.experience(batch, say(batch), None)
    resumed = tiny.algorithm("reinforce", beta=0.0)
    resumed.load_state_dict(method.state_dict())
    other = sampled([[7.0], [8.0]])
    with torch.no_grad():
        assert resumed.experience(other, say(other), None)["advantages"].tolist() == [5.0, 6.0]
    assert resumed.state_dict() == method.state_dict()


def test_the_kl_is_taken_off_the_reward() -> None:
    """Plus the KL, with the sign turned round, would pay for leaving the reference."""
    method, batch = tiny.algorithm("reinforce", beta=0.5), sampled([[1.0], [3.0]], [[2], [4]])
    found = method.experience(batch, say(batch, -1.0), say(batch, -2.0))
    assert found["kl"].tolist() == [2.0, 4.0]
    assert found["advantages"].tolist() == [0.0 - 0.5, 1.0 - 0.5]
