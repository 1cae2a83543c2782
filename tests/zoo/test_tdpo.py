"""TDPO: its two versions, the KL that carries a gradient, and probabilities that underflow."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import flat, hold, mean, softplus
from tests.zoo.whole import CHOSEN, DATA, REJECTED, kls, policy, ratios
from xpo import Batch
from xpo.testing import run_case
from xpo_zoo.pairs.tdpo import forward_kl


def tdpo_metrics(beta: float) -> dict[str, float]:
    found_ratios, found_kls = ratios(policy()), kls(policy())
    return {
        "kl/chosen": mean([k for k, _ in found_kls]),
        "kl/rejected": mean([k for _, k in found_kls]),
        "kl/margin": mean([c - r for c, r in found_kls]),
        "rewards/chosen": beta * mean([r + k for (r, _), (k, _) in zip(found_ratios, found_kls, strict=True)]),
    }


def test_tdpo1_lets_the_gradient_through_both_kls() -> None:
    def loss(found: dict[str, Any]) -> float:
        both = zip(ratios(found), kls(found), strict=True)
        return mean([softplus(-0.4 * ((rc - rr) - (kr - kc))) for (rc, rr), (kc, kr) in both])

    hold({"loss": "tdpo1", "hyper": {"beta": 0.4}, "policy": policy(), "data": DATA}, loss, **tdpo_metrics(0.4))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_tdpo2_stops_the_gradient_at_the_chosen_kl_alone(alpha: float) -> None:
    frozen = [chosen for chosen, _ in kls(policy())]

    def loss(found: dict[str, Any]) -> float:
        both = zip(ratios(found), frozen, kls(found), strict=True)
        return mean([softplus(-0.3 * ((rc - rr) - alpha * (kr - kc))) for (rc, rr), kc, (_, kr) in both])

    hyper = {"beta": 0.3, "alpha": alpha}
    hold({"loss": "tdpo2", "hyper": hyper, "policy": policy(), "data": DATA}, loss, **tdpo_metrics(0.3))


def test_tdpo_is_version_2_unless_version_1_is_asked_for() -> None:
    """The authors' code runs version 1 under the command its README gives for version 2."""
    case = {"kind": "loss", "policy": policy(), "data": DATA}
    tdpo1 = run_case({**case, "loss": "tdpo1", "hyper": {}})["loss"]
    tdpo2 = run_case({**case, "loss": "tdpo2", "hyper": {}})["loss"]
    half = run_case({**case, "loss": "tdpo2", "hyper": {"alpha": 0.5}})["loss"]
    assert tiny.algorithm("tdpo").config.version == 2
    assert tdpo2 == half
    assert abs(tdpo1 - tdpo2) > 1e-4
    whole = run_case({**case, "loss": "tdpo2", "hyper": {"alpha": 1.0}})
    assert whole["loss"] == pytest.approx(tdpo1)  # the same value, another gradient
    slopes = flat(run_case({**case, "loss": "tdpo1", "hyper": {}})["grad"]["chosen_logits"])
    assert flat(whole["grad"]["chosen_logits"]) != pytest.approx(slopes, rel=1e-3)


@pytest.mark.parametrize("version", [1, 2])
def test_tdpo_starts_at_ln_2(version: int) -> None:
    same = {**DATA, "ref_chosen_logits": CHOSEN, "ref_rejected_logits": REJECTED}
    found = run_case({"loss": f"tdpo{version}", "kind": "loss", "hyper": {}, "policy": policy(), "data": same})
    algorithm = tiny.algorithm("tdpo", version=version)
    assert found["loss"] == pytest.approx(math.log(2)) == algorithm.value_at_reference(Batch.of([]))


def test_the_kl_is_finite_where_a_probability_underflows() -> None:
    """softmax().log() makes it 0 times infinity."""
    near_certain = torch.tensor([[0.0, -400.0, -300.0]], requires_grad=True)
    other = torch.tensor([[-200.0, 0.0, -350.0]])
    for own, reference in ((near_certain, other), (near_certain, near_certain.detach())):
        found = forward_kl(own.log_softmax(-1), reference.log_softmax(-1))
        (slope,) = torch.autograd.grad(found.sum(), near_certain)
        assert found.isfinite().all()
        assert slope.isfinite().all()
    assert float(forward_kl(near_certain.log_softmax(-1), other.log_softmax(-1)).detach()) == pytest.approx(400.0)
