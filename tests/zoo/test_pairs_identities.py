"""Pair methods with a reference: which of them is another one at certain settings, or on average."""

from __future__ import annotations

import math

import pytest

from tests.zoo.byhand import flat
from tests.zoo.referenced import pairs, same
from xpo.testing import run_case

EQUALS_DPO = {
    "robust_dpo": {"label_smoothing": 0.0},
    "ld_dpo": {"alpha": 1.0},
    "dpop": {"lambda": 0.0},
    "r_dpo": {"alpha": 0.0},
    "gpo": {"f": "logistic"},
    "f_dpo": {"divergence": "reverse_kl"},
    "rpo_nll": {"alpha": 0.0, "nll": "token"},
    "cdpo": {"label_smoothing": 0.0},
}


@pytest.mark.parametrize("loss", EQUALS_DPO)
def test_special_cases_are_dpo(loss: str) -> None:
    same(pairs(loss, {"beta": 0.3, **EQUALS_DPO[loss]}), pairs("dpo", {"beta": 0.3}))


def test_beta_dpo_that_keeps_everything_and_follows_nothing_is_dpo() -> None:
    same(pairs("beta_dpo", {"beta": 0.3, "a": 0.0}, gap_mean_prev=0.7, keep=[True] * 5), pairs("dpo", {"beta": 0.3}))
    same(pairs("beta_dpo", {"beta": 0.3, "a": 0.0, "rho": 0.0}), pairs("dpo", {"beta": 0.3}))


def test_gpo_meets_the_hinge_and_ipo() -> None:
    same(pairs("gpo", {"beta": 0.3, "f": "hinge"}), pairs("hinge_norm", {"beta": 0.3}))
    ipo = pairs("ipo", {"tau": 0.15, "length_normalize": False})
    same(pairs("gpo", {"beta": 0.3, "f": "squared"}), ipo, factor=0.3**2)


def test_the_alpha_divergence_lies_between_the_two_kl() -> None:
    forward = pairs("f_dpo", {"beta": 0.3, "divergence": "forward_kl"})
    same(pairs("f_dpo", {"beta": 0.3, "divergence": "alpha", "alpha": 1.0}), forward)
    reverse = run_case(pairs("dpo", {"beta": 0.3}))["loss"]
    nearly = run_case(pairs("f_dpo", {"beta": 0.3, "divergence": "alpha", "alpha": 1e-6}))["loss"]
    assert nearly == pytest.approx(reverse, abs=1e-5)


def test_robust_dpo_is_dpo_on_average_over_flipped_labels() -> None:
    case = pairs("robust_dpo", {"beta": 0.8, "label_smoothing": 0.3}, count=1)
    flipped = {
        **case,
        "policy": {"chosen": case["policy"]["rejected"], "rejected": case["policy"]["chosen"]},
        "data": {"ref_chosen": case["data"]["ref_rejected"], "ref_rejected": case["data"]["ref_chosen"]},
    }
    clean = run_case({**case, "loss": "dpo", "hyper": {"beta": 0.8}})["loss"]
    assert 0.7 * run_case(case)["loss"] + 0.3 * run_case(flipped)["loss"] == pytest.approx(clean, abs=1e-12)


def test_exo_is_best_at_the_log_odds_of_its_label() -> None:
    """Where the margin is log((1 - e) / e), policy and label agree and the loss is 0."""
    target = math.log(0.9 / 0.1) / 0.5
    case = {
        "loss": "exo_pref",
        "hyper": {"beta": 0.5, "label_smoothing": 0.1},
        "policy": {"chosen": [[-1.0]], "rejected": [[-2.0]]},
        "data": {"ref_chosen": [[-1.0]], "ref_rejected": [[-2.0 + target]]},
    }
    found = run_case(case)
    assert found["loss"] == pytest.approx(0.0, abs=1e-12)
    assert flat([*found["grad"].values()]) == pytest.approx([0.0, 0.0], abs=1e-12)


def test_reward_aware_preferences_are_met_where_margins_fit_the_scores() -> None:
    for distance in ("squared", "bwd_kl", "fwd_kl"):
        case = {
            "loss": "rpo_reward_aware",
            "hyper": {"beta": 0.5, "eta": 2.0, "distance": distance},
            "policy": {"chosen": [[-1.0]], "rejected": [[-3.0]]},
            "data": {"ref_chosen": [[-4.0]], "ref_rejected": [[-3.0]], "score_chosen": [1.0], "score_rejected": [0.25]},
        }
        assert run_case(case)["loss"] == pytest.approx(0.0, abs=1e-12)


def test_the_order_of_the_reference_does_not_matter_to_aot() -> None:
    case = pairs("aot_paired", {"beta": 0.5}, spread=2.0)
    turned = {key: rows[1:] + rows[:1] for key, rows in case["data"].items()}
    # Rows must keep their lengths, so each becomes one token with the same sum.
    narrow = {key: [[sum(row)] for row in rows] for key, rows in case["policy"].items()}
    one, other = (
        run_case({**case, "policy": narrow, "data": {key: [[sum(row)] for row in rows] for key, rows in data.items()}})
        for data in (case["data"], turned)
    )
    assert one["loss"] == pytest.approx(other["loss"], abs=1e-12)
    assert one["grad"] == other["grad"]
