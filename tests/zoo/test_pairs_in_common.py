"""Pair methods with a reference: their value there, their pull, and numbers far out, of all of them alike."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.referenced import METHODS, NAMES, batch_of, each_method, said, value_of
from xpo import Batch, Completion, Group, SettingError


@each_method
def test_the_value_at_the_reference_is_what_the_method_says(key: str) -> None:
    name, settings = METHODS[key]
    method = tiny.algorithm(name, **settings)
    batch = batch_of([(3, 1), (2, 4), (5, 5)])
    scores = said(batch, [-3.0, -8.0, -1.0], [-2.0, -0.5, -6.0])
    promised = method.value_at_reference(batch)
    found = float(value_of(method.loss(batch, scores, scores.detach()), batch).detach())
    if name == "simpo" or key == "rpo":
        assert promised is None  # they depend on likelihoods, not on ratios alone
    else:
        assert promised == pytest.approx(found, rel=1e-12)


def test_the_values_at_the_reference_are_those_of_the_literature() -> None:
    batch = batch_of([(3, 1), (2, 4)])
    known = {
        "dpo": math.log(2),
        "hinge_norm": 1.0,
        "apo_down": 1.0,
        "nca": 2 * math.log(2),
        "discopop": 0.846574,
        "exo": 2.761231,
        "gpo savage": 0.25,
        "hard sppo": 500_000.0,  # twice the 250000 of the authors' scale
        "ipo": 25.0,
    }
    for key, value in known.items():
        name, settings = METHODS[key]
        assert tiny.algorithm(name, **settings).value_at_reference(batch) == pytest.approx(value, rel=1e-6), key


def test_kto_at_the_reference_is_half_the_mean_weight() -> None:
    method = tiny.algorithm("kto", z0="zero", desirable_weight=1.2, undesirable_weight=0.6)
    batch = Batch.of([Group([1], [Completion([1], label=label)]) for label in (True, False, False)])
    assert method.value_at_reference(batch) == pytest.approx(0.5 * (1.2 + 0.6 + 0.6) / 3)


@each_method
@pytest.mark.parametrize("far", [90.0, 700.0])
def test_hundreds_of_nats_either_way_stay_finite_in_float32(key: str, far: float) -> None:
    name, settings = METHODS[key]
    method = tiny.algorithm(name, **settings)
    batch = batch_of([(2, 3)] * 5, torch.float32)
    policy = said(batch, [-far, -1.0, -far, -1.0, -1.0], [-1.0, -far, -far, -1.0, -2 * far], torch.float32)
    reference = said(batch, [-1.0, -far, -1.0, -far, -1.0], [-far, -1.0, -1.0, -far, -1.0], torch.float32).detach()
    loss = method.loss(batch, policy, reference)
    value = value_of(loss, batch)
    value.backward()
    assert math.isfinite(value.item())
    assert policy.logps.grad is not None
    assert policy.logps.grad.isfinite().all()
    assert all(items.isfinite().all() for items in loss.metrics.values())


@pytest.mark.parametrize("key", [key for key in METHODS if key != "gpo squared" and "smoothed" not in key])
def test_the_gradient_pulls_where_the_method_says(key: str) -> None:
    """Whatever the margin; these settings left out have a margin beyond which they pull back."""
    name, settings = METHODS[key]
    method = tiny.algorithm(name, **settings)
    rng = random.Random(3)
    batch = batch_of([(2, 3)] * 6)
    for spread in (0.1, 3.0, 30.0):
        policy, reference = (
            said(batch, *([-spread * rng.random() for _ in range(6)] for _ in range(2))) for _ in range(2)
        )
        value_of(method.loss(batch, policy, reference.detach()), batch).backward()
        slopes = policy.logps.grad.sum(-1)
        for role in method.raises:
            assert (slopes[batch.where(role)] <= 1e-12).all(), role
        for role in method.lowers:
            assert (slopes[batch.where(role)] >= -1e-12).all(), role


@each_method
def test_a_method_explains_what_it_logs(key: str) -> None:
    name, settings = METHODS[key]
    method = tiny.algorithm(name, **settings)
    batch = batch_of([(3, 1), (2, 4)])
    scores = said(batch, [-3.0, -8.0], [-2.0, -0.5])
    assert set(method.loss(batch, scores, scores.detach()).metrics) == set(type(method).metrics)


REFUSED = [
    ("robust_dpo", {"label_smoothing": 0.5}),
    ("ipo", {"tau": 0.0}),
    ("ld_dpo", {"alpha": 1.2}),
    ("dpo_norm", {"beta": 0.0}),
    ("hinge_norm", {"beta": -1.0}),
    ("dpop", {"lambda_": -1.0}),
    ("beta_dpo", {"rho": 1.0}),
    ("beta_dpo", {"momentum": 1.0}),
    ("beta_dpo", {"beta_min": 0.0}),
    ("beta_dpo", {"a": -0.1}),
    ("gpo", {"f": "cubic"}),
    ("r_dpo", {"alpha": -0.1}),
    ("f_dpo", {"divergence": "js_divergence"}),
    ("f_dpo", {"alpha": 0.0}),
    ("exo", {"label_smoothing": 0.0}),
    ("discopop", {"tau": 0.0}),
    ("aot", {"label_smoothing": 0.5}),
    ("rpo", {"alpha": -1.0}),
    ("rpo", {"nll": "mean"}),
    ("rpo_reward_aware", {"eta": 0.0}),
    ("rpo_reward_aware", {"distance": "kl"}),
    ("sppo", {"scale": 0.0}),
    *((name, {"beta": 0.0}) for name in ("exo", "nca", "bco_pair", "apo_zero", "apo_down", "aot_unpaired", "sppo")),
]


@pytest.mark.parametrize(("name", "settings"), REFUSED)
def test_settings_that_make_no_sense_are_refused(name: str, settings: dict[str, Any]) -> None:
    (setting,) = settings
    with pytest.raises(SettingError, match=setting):
        tiny.algorithm(name, **settings)


def test_batch_statistics_need_two_pairs() -> None:
    assert {name for name in NAMES if tiny.algorithm(name).needs.least == 2} == {"aot", "aot_unpaired", "beta_dpo"}
