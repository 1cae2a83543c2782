"""Methods of lists: their value at the reference, ties, ragged lists, and numbers far out, of all of them alike."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import flat
from tests.zoo.ranked import ALL, RELATIVE, WITH_TARGETS, case, listed, say, slopes
from xpo import DataError, SettingError
from xpo.api.loss import counts, reduce
from xpo.plugins import load
from xpo.testing import run_case


def test_a_list_of_one_has_nothing_to_be_held_against() -> None:
    with pytest.raises(DataError, match=r"row 3: d2o .* sample at least one completion"):
        tiny.algorithm("d2o").collate([listed([1.0, 0.0], 2), listed([1.0], 3)])


@pytest.mark.parametrize("name", RELATIVE)
def test_the_value_at_the_reference_is_known_beforehand(name: str) -> None:
    algorithm = tiny.algorithm(name)
    groups = [listed([0.9, 0.1, 0.5, 0.3], 5), listed([0.1, 0.9], 6), listed([0.4, 0.4, 0.4], 7)]
    batch, policy, reference = say(algorithm.collate(groups), [0.0] * 9)
    value, _ = reduce(algorithm.loss(batch, policy, reference), batch, counts(batch))
    expected = algorithm.value_at_reference(batch)
    if name == "exo_list":  # depends on the scores
        assert expected is None
    else:
        assert expected == pytest.approx(float(value.detach()))


def test_the_values_at_the_reference_are_those_of_the_papers() -> None:
    batch, _, _ = say([listed([0.9, 0.1, 0.5]), listed([0.1, 0.9])], [0.0] * 5)
    assert tiny.algorithm("dpo_pl").value_at_reference(batch) == pytest.approx((math.log(6) + math.log(2)) / 2)
    assert tiny.algorithm("info_nca").value_at_reference(batch) == pytest.approx((math.log(3) + math.log(2)) / 2)
    assert tiny.algorithm("nca_list").value_at_reference(batch) == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("name", [name for name in ALL if name not in WITH_TARGETS])
def test_a_list_without_an_order_adds_nothing_and_is_counted(name: str) -> None:
    groups = [listed([0.5, 0.5, 0.5]), listed([0.9, 0.1])]
    algorithm = tiny.algorithm(name)
    loss = algorithm.loss(*say(algorithm.collate(groups), [-0.3, -0.2, -0.5, -0.9, -0.1]))
    assert all(term.values.tolist()[0] == 0.0 for term in loss.terms)
    assert any(term.values.tolist()[1] > 0.0 for term in loss.terms)
    assert loss.metrics["share/tied"].tolist() == [1.0, 0.0]
    assert slopes(name, groups, [-0.3, -0.2, -0.5, -0.9, -0.1])[:3] == [0.0] * 3


@pytest.mark.parametrize("name", WITH_TARGETS)
def test_equal_scores_ask_for_equality(name: str) -> None:
    found = slopes(name, [listed([0.5, 0.5])], [0.4, -0.4])
    assert found[0] > 0 > found[1]


@pytest.mark.parametrize("name", ALL)
def test_lists_of_several_lengths_count_alike_and_do_not_know_of_each_other(name: str) -> None:
    rng = random.Random(name)
    groups = [listed([round(rng.random(), 3) for _ in range(size)], row) for row, size in enumerate((5, 2, 4, 3))]
    said = [-2 * rng.random() for _ in range(14)]
    together, start = slopes(name, groups, said), 0
    for group in groups:
        size = len(group.completions)
        alone = slopes(name, [group], said[start : start + size])
        assert [4 * slope for slope in together[start : start + size]] == pytest.approx(alone)
        start += size


@pytest.mark.parametrize("name", ALL)
def test_the_best_is_raised_and_the_worst_lowered(name: str) -> None:
    found = slopes(name, [listed([0.1, 0.9, 0.5])], [-0.4, -0.6, -0.5])
    assert found[1] < 0 < found[0]


@pytest.mark.parametrize("name", ALL)
def test_hundreds_of_nats_stay_finite(name: str) -> None:
    rng = random.Random(3)
    cls = load().algorithm(name).cls
    strong = {key: 1.0 for key in ("beta", "beta_pi") if key in cls.settings()}
    algorithm = tiny.algorithm(name, **strong)
    groups = algorithm.collate([listed([0.9, 0.1, 0.5, 0.3]), listed([0.1, 0.9]), listed([1.0, 0.0, 0.5])])
    for extreme in (900.0, -900.0):
        said = [rng.choice([extreme, -extreme, 0.0, 0.5 * extreme]) for _ in range(9)]
        batch, policy, reference = say(groups, said, torch.float32)
        value, _ = reduce(algorithm.loss(batch, policy, reference), batch, counts(batch))
        value.backward()
        assert math.isfinite(float(value.detach()))
        assert policy.logps.grad.isfinite().all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("score", [None, math.nan])
def test_a_missing_score_is_named(name: str, score: float | None) -> None:
    with pytest.raises(DataError, match="row 8: the column scores holds no number for completion 2 of 3"):
        tiny.algorithm(name).collate([listed([0.1, 0.2]), listed([1.0, score, 0.0], 8)])


@pytest.mark.parametrize("name", ALL)
def test_every_key_that_is_logged_is_explained(name: str) -> None:
    algorithm = tiny.algorithm(name)
    loss = algorithm.loss(*say(algorithm.collate([listed([0.2, 0.9, 0.4])]), [-0.1, -0.2, -0.3]))
    assert set(loss.metrics) == set(algorithm.metrics)
    assert all(values.dim() == 1 and not values.requires_grad for values in loss.metrics.values())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lipo", {"label_scale": "max"}, "label_scale must be"),
        ("lipo", {"ties": "label"}, "ties must be"),
        ("rrhf", {"length": "total"}, "length must be"),
        ("rrhf", {"sft": "max"}, "sft must be"),
        ("pro", {"sft_weight": -1.0}, "must not be negative"),
        *((name, {"beta": 0.0}, "beta must be positive") for name in RELATIVE if name != "exo_list"),
        ("exo_list", {"beta_r": 0.0}, "beta_r must be positive"),
    ],
)
def test_settings_are_checked(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        tiny.algorithm(name, **settings)


def test_nested_gradients_of_ragged_lists_have_the_shape_of_the_case() -> None:
    given = case("listnet", {"beta": 0.1})
    found = run_case(given)["grad"]["completions"]
    assert [[len(tokens) for tokens in row] for row in found] == [
        [len(tokens) for tokens in row] for row in given["policy"]["completions"]
    ]
    assert len(flat(found)) == len(flat(given["policy"]["completions"]))
