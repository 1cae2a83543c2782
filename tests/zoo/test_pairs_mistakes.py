"""Pair methods with a reference: where others went wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import mean, sigmoid, softplus
from tests.zoo.referenced import batch_of, pairs, ratios, same, value_of
from xpo import Batch, Completion, Group, Scores
from xpo.api.loss import counts, reduce
from xpo.plugins import load
from xpo.testing import run_case


def test_cdpo_is_not_an_ignored_option() -> None:
    """TRL gives one loss for label_smoothing 0.0 and 0.3."""
    plain, smoothed = (run_case(pairs("cdpo", {"beta": 0.5, "label_smoothing": e}))["loss"] for e in (0.0, 0.3))
    assert abs(plain - smoothed) > 1e-3


def test_r_dpo_has_a_plus_before_alpha() -> None:
    """A longer chosen completion explains part of the preference: its pair pulls less, not more."""
    longer = {
        "loss": "r_dpo",
        "hyper": {"beta": 0.1, "alpha": 0.5},
        "policy": {"chosen": [[-1.0] * 5], "rejected": [[-1.0]]},
        "data": {"ref_chosen": [[-1.0] * 5], "ref_rejected": [[-1.0]]},
    }
    found = run_case(longer)
    assert found["loss"] == pytest.approx(softplus(-0.5 * 4))
    assert found["grad"]["rejected"][0][0] == pytest.approx(0.1 * sigmoid(-0.5 * 4))


def test_ld_dpo_counts_positions_from_the_start_of_the_completion() -> None:
    """Counted from the start of the prompt, a prompt longer than the completions drops all of them."""
    groups = [
        Group([1] * 20, [Completion([0] * 3, "chosen"), Completion([0] * 2, "rejected")], [(0, 1)], row=0),
    ]
    batch = Batch.of(groups, dtype=torch.float64)
    policy = Scores(torch.tensor([[-1.0, -2.0, -4.0], [-1.5, -1.5, 0.0]], dtype=torch.float64), batch.mask)
    loss = tiny.algorithm("ld_dpo", alpha=0.0, beta=1.0).loss(batch, policy, replace(policy, logps=0.5 * policy.logps))
    assert [loss.metrics[f"logps/{role}"].item() for role in ("chosen", "rejected")] == [-3.0, -3.0]


def test_ld_dpo_scales_the_tail_of_the_reference_too() -> None:
    """Scaled in the policy alone, a policy that is its own reference would have a margin."""
    case = pairs("ld_dpo", {"beta": 1.0, "alpha": 0.3}, spread=0.0)
    found = run_case(case)
    assert found["loss"] == pytest.approx(math.log(2), abs=1e-12)
    assert found["metrics"]["rewards/chosen"] == 0.0


def test_ipo_averages_unless_told_to_sum() -> None:
    default = pairs("ipo", {"tau": 0.1})
    same(default, pairs("ipo", {"tau": 0.1, "length_normalize": True}))
    sums = run_case(pairs("ipo", {"tau": 0.1, "length_normalize": False}))["loss"]
    assert abs(run_case(default)["loss"] - sums) > 0.1


def test_the_nll_of_rpo_does_not_drop_tokens_of_id_zero() -> None:
    """TRL took 0 for the index to ignore."""
    groups = [Group([1], [Completion([0, 0, 5], "chosen"), Completion([0], "rejected")], [(0, 1)], row=0)]
    batch = Batch.of(groups, dtype=torch.float64)
    logps = torch.tensor([[-1.0, -2.0, -6.0], [-1.0, 0.0, 0.0]], dtype=torch.float64)
    scores = Scores(logps, batch.mask)
    for per, expected in (("token", 3.0), ("sequence", 3.0), ("sum", 9.0)):
        loss = tiny.algorithm("rpo", nll=per).loss(batch, scores, scores)
        assert float(value_of(loss, batch)) == pytest.approx(math.log(2) + expected)


def test_the_token_nll_of_rpo_is_that_of_the_step_not_of_its_micro_batches() -> None:
    whole = batch_of([(5, 1), (1, 1), (1, 1), (2, 1)])
    values = torch.tensor([[-float(i + 1)] * whole.mask.shape[1] for i in range(len(whole))], dtype=torch.float64)
    method = tiny.algorithm("rpo", nll="token")

    def share(batch: Batch, logps: torch.Tensor) -> float:
        scores = Scores(logps[:, : batch.mask.shape[1]] * batch.mask, batch.mask)
        return float(reduce(method.loss(batch, scores, scores), batch, counts(whole))[0])

    parts = [(Batch.of(whole.groups[a:b], dtype=torch.float64), values[2 * a : 2 * b]) for a, b in ((0, 1), (1, 4))]
    assert sum(share(*part) for part in parts) == pytest.approx(share(whole, values), abs=1e-12)


def test_bco_on_pairs_has_its_shift() -> None:
    """TRL 1.16 left delta out."""
    shifted, centred = (
        run_case(pairs("bco_pair", {"beta": 0.6}, delta_prev=delta, delta_count_prev=9))["loss"] for delta in (2.0, 0.0)
    )
    assert abs(shifted - centred) > 0.01


def test_sppo_is_half_of_the_hard_variant_of_trl() -> None:
    ours = pairs("sppo", {"beta": 0.1, "hard": True})
    same(ours, pairs("sppo", {"beta": 0.1, "hard": True, "scale": 1.0}), factor=0.5)
    same(ours, pairs("sppo", {"beta": 0.1}, p_win=[1.0] * 5, p_lose=[0.0] * 5))


def test_f_dpo_logs_the_rewards_it_compares() -> None:
    """TRL logs beta R whatever the divergence."""
    case = pairs("f_dpo", {"beta": 0.6, "divergence": "js"}, spread=2.0)
    found = run_case(case)["metrics"]
    for role in ("chosen", "rejected"):
        expected = [0.6 * (math.log(2) - softplus(-ratio)) for ratio in ratios(case, role)]
        assert found[f"rewards/{role}"] == pytest.approx(mean(expected))


def test_alpha_of_f_dpo_is_the_papers_and_not_one_minus_it() -> None:
    w, r = 2.0, -1.0
    case = {
        "loss": "f_dpo",
        "hyper": {"beta": 1.0, "divergence": "alpha", "alpha": 0.25},
        "policy": {"chosen": [[-1.0]], "rejected": [[-2.0]]},
        "data": {"ref_chosen": [[-1.0 - w]], "ref_rejected": [[-2.0 - r]]},
    }
    z = (1 - math.exp(-0.25 * w)) / 0.25 - (1 - math.exp(-0.25 * r)) / 0.25
    assert run_case(case)["loss"] == pytest.approx(softplus(-z))
    assert "1 - alpha" in load().algorithm("f_dpo").cls.settings()["alpha"][1]


def test_dpop_does_not_pull_on_the_chosen_completion_for_being_at_the_reference() -> None:
    """At the kink, where training starts, the gradient is that of DPO."""
    same(pairs("dpop", {"beta": 0.3, "lambda": 50.0}, spread=0.0), pairs("dpo", {"beta": 0.3}, spread=0.0))


def test_dpop_penalises_inside_the_sigmoid() -> None:
    case = {
        "loss": "dpop",
        "hyper": {"beta": 0.3, "lambda": 5.0},
        "policy": {"chosen": [[-3.0]], "rejected": [[-2.0]]},
        "data": {"ref_chosen": [[-1.0]], "ref_rejected": [[-1.0]]},
    }
    found = run_case(case)
    assert found["loss"] == pytest.approx(softplus(-0.3 * (-2.0 + 1.0 - 5.0 * 2.0)))
    assert found["metrics"]["penalty"] == 2.0
