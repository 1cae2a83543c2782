"""Unlearning: NPO, SimNPO, gradient ascent and gradient difference."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import Ragged, hold, mean, near, ragged, softplus
from xpo import Algorithm, Batch, Completion, DataError, Group, Needs, SettingError
from xpo.api.loss import counts, reduce
from xpo.models.scoring import score
from xpo.testing import run_case

FORGET, RETAIN = ragged(1, 4), ragged(2, 3)
REFERENCE = near(FORGET, 3, 2.0)


def average(row: list[float]) -> float:
    return sum(row) / len(row)


def nll(rows: Ragged) -> float:
    return -sum(map(sum, rows)) / sum(map(len, rows))


def copied(**policy: Ragged) -> dict[str, Ragged]:
    return {role: [list(row) for row in rows] for role, rows in policy.items()}


def npo(rows: Ragged, beta: float) -> float:
    both = zip(rows, REFERENCE, strict=True)
    return mean([2 / beta * softplus(beta * (sum(row) - sum(ref))) for row, ref in both])


# NPO


@pytest.mark.parametrize("beta", [0.1, 1.0])
@pytest.mark.parametrize("hyper", [{}, {"forget_weight": 0.3, "retain_nll_weight": 1.7}, {"retain_nll_weight": 0.0}])
def test_npo(beta: float, hyper: dict[str, float]) -> None:
    def loss(policy: dict[str, Any]) -> float:
        retained = hyper.get("retain_nll_weight", 1.0) * nll(policy["retain"])
        return hyper.get("forget_weight", 1.0) * npo(policy["forget"], beta) + retained

    case = {"loss": "npo", "hyper": {"beta": beta, **hyper}, "policy": copied(forget=FORGET, retain=RETAIN)}
    hold(
        {**case, "data": {"ref_forget": REFERENCE}},
        loss,
        forget_loss=npo(FORGET, beta),
        forget_excess=npo(FORGET, beta) - 2 / beta * math.log(2),
        retain_loss=nll(RETAIN),
        **{"logratios/forget": mean([sum(a) - sum(b) for a, b in zip(FORGET, REFERENCE, strict=True)])},
    )


LOGITS = [[[0.4, -1.2, 2.0], [1.0, 0.3, -0.2]], [[-0.7, 0.1, 0.9], [2.2, -0.4, 0.0], [0.5, 0.5, -1.5]]]
REFERENCE_LOGITS = near(LOGITS, 4, 2.0)
IDS = [[2, 0], [1, 0, 2]]


def log_softmax(row: list[float]) -> list[float]:
    normaliser = math.log(sum(map(math.exp, row)))
    return [value - normaliser for value in row]


def kl(policy: list[list[list[float]]]) -> float:
    """KL(ref || policy), a mean over the tokens of all completions to retain."""
    found = []
    for rows, ref_rows in zip(policy, REFERENCE_LOGITS, strict=True):
        for row, ref_row in zip(rows, ref_rows, strict=True):
            pairs = zip(log_softmax(row), log_softmax(ref_row), strict=True)
            found.append(sum(math.exp(ref) * (ref - own) for own, ref in pairs))
    return mean(found)


@pytest.mark.parametrize(
    ("hyper", "nll_weight"),
    [({"retain_kl_weight": 1.5}, 0.0), ({"retain_kl_weight": 0.5, "retain_nll_weight": 0.8}, 0.8)],
)
def test_npo_with_a_kl_to_the_reference_on_what_is_retained(hyper: dict[str, float], nll_weight: float) -> None:
    def nll_of_logits(policy: list[list[list[float]]]) -> float:
        both = zip((row for rows in policy for row in rows), (token for ids in IDS for token in ids), strict=True)
        return -mean([log_softmax(row)[token] for row, token in both])

    def loss(policy: dict[str, Any]) -> float:
        retained = hyper["retain_kl_weight"] * kl(policy["retain_logits"])
        return 0.7 * npo(policy["forget"], 0.2) + retained + nll_weight * nll_of_logits(policy["retain_logits"])

    policy: dict[str, Any] = {**copied(forget=FORGET), "retain_logits": near(LOGITS, 0, 0.0)}
    data = {"ref_forget": REFERENCE, "ref_retain_logits": REFERENCE_LOGITS, "retain_ids": IDS}
    case = {"loss": "npo", "hyper": {"beta": 0.2, "forget_weight": 0.7, **hyper}, "policy": policy, "data": data}
    hold(case, loss, retain_kl=kl(LOGITS), retain_loss=nll_of_logits(LOGITS))


def forgetting(count: int, retained: int) -> list[Group]:
    """Groups to forget and to retain, in turn while there are both."""
    rng = random.Random(count)
    roles = [role for pair in zip(["forget"] * count, ["retain"] * count, strict=True) for role in pair]
    roles = [role for place, role in enumerate(roles) if role == "forget" or place // 2 < retained]
    return [
        Group(
            [rng.randrange(37) for _ in range(rng.randint(1, 5))],
            [Completion([*(rng.randrange(37) for _ in range(rng.randint(1, 8))), tiny.EOS], role)],
            row=row,
        )
        for row, role in enumerate(roles)
    ]


def test_the_kl_is_of_what_is_retained_and_neither_of_prompts_nor_of_padding() -> None:
    """The authors' code averages it over all positions of the padded batch."""
    algorithm = tiny.algorithm("npo", retain_kl_weight=1.0)
    model, other = tiny.model(), tiny.model(1)
    batch = Batch.of(algorithm.collate(forgetting(3, 3)))
    scores, reference = score(model, batch, vocabulary=True), score(other, batch, vocabulary=True)
    loss = algorithm.loss(batch, scores, reference.detach())
    share = reduce(loss, batch, counts(batch))[1]["retain_kl"]
    found: list[float] = []
    for group in batch.groups:
        if group.completions[0].role == "retain":
            ids = torch.tensor([[*group.prompt_ids, *group.completions[0].ids]])
            own, ref = (some(ids).logits[0, len(group.prompt_ids) - 1 : -1].log_softmax(-1) for some in (model, other))
            found += (ref.exp() * (ref - own)).sum(-1).tolist()
    assert float(share.detach()) == pytest.approx(mean(found), rel=1e-5)


def test_a_micro_batch_without_anything_to_retain_is_no_trouble() -> None:
    algorithm = tiny.algorithm("npo", retain_kl_weight=1.0, retain_nll_weight=1.0)
    batch = Batch.of(forgetting(2, 0))
    scores = score(tiny.model(), batch, vocabulary=True)
    loss = algorithm.loss(batch, scores, scores.detach())
    value = reduce(loss, batch, counts(batch))[0]
    assert float(value.detach()) == pytest.approx(20 * math.log(2))
    assert loss.metrics["retain_kl"].numel() == loss.metrics["retain_loss"].numel() == 0


def test_npo_starts_at_2_over_beta_ln_2() -> None:
    policy = copied(forget=FORGET)
    case = {"loss": "npo", "kind": "loss", "policy": policy, "data": {"ref_forget": FORGET}}
    for beta, weight in ((0.1, 1.0), (0.5, 0.3)):
        found = run_case({**case, "hyper": {"beta": beta, "forget_weight": weight}})
        algorithm = tiny.algorithm("npo", beta=beta, forget_weight=weight, retain_nll_weight=0.0)
        assert found["loss"] == pytest.approx(weight * 2 / beta * math.log(2))
        assert algorithm.value_at_reference(Batch.of([])) == pytest.approx(found["loss"])
        assert found["metrics"]["forget_excess"] == pytest.approx(0.0, abs=1e-12)
    assert tiny.algorithm("npo").value_at_reference(Batch.of([])) is None  # the NLL of what is retained is not known
    assert tiny.algorithm("npo", retain_kl_weight=1.0).value_at_reference(Batch.of([])) == pytest.approx(13.8629436)


def test_npo_becomes_gradient_ascent_as_beta_vanishes() -> None:
    """Up to its constant and to the sum in place of the mean over tokens."""
    data = {"ref_forget": REFERENCE}
    grad = run_case(
        {"loss": "npo", "kind": "loss", "hyper": {"beta": 1e-7}, "policy": copied(forget=FORGET), "data": data}
    )["grad"]
    assert [slope for row in grad["forget"] for slope in row] == pytest.approx(
        [1 / 4] * sum(map(len, FORGET)), rel=1e-5
    )


def test_npo_lets_go_of_what_is_forgotten_where_gradient_ascent_pulls_on() -> None:
    forgotten = copied(forget=[[-300.0, -200.0]])
    data = {"ref_forget": [[-1.0, -1.0]]}
    found = run_case({"loss": "npo", "kind": "loss", "hyper": {"beta": 0.1}, "policy": forgotten, "data": data})
    assert 0 < found["grad"]["forget"][0][0] < 1e-20
    ascent = run_case({"loss": "gradient_ascent", "kind": "loss", "hyper": {}, "policy": forgotten, "data": {}})
    assert ascent["grad"]["forget"] == [[0.5, 0.5]]


# SimNPO


@pytest.mark.parametrize(("beta", "gamma"), [(2.5, 0.0), (0.7, 0.4)])
@pytest.mark.parametrize("nll_weight", [1.0, 0.25])
def test_simnpo_has_its_margin_inside_beta(beta: float, gamma: float, nll_weight: float) -> None:
    def forget(rows: Ragged) -> float:
        return mean([2 / beta * softplus(-beta * (-average(row) - gamma)) for row in rows])

    def loss(policy: dict[str, Any]) -> float:
        return forget(policy["forget"]) + nll_weight * nll(policy["retain"])

    hyper = {"beta": beta, "gamma": gamma, "retain_nll_weight": nll_weight}
    case = {"loss": "simnpo", "hyper": hyper, "policy": copied(forget=FORGET, retain=RETAIN)}
    hold(case, loss, forget_loss=forget(FORGET), retain_loss=nll(RETAIN))


def test_the_weights_of_simnpo_are_those_tuned_on_tofu() -> None:
    config = tiny.algorithm("simnpo").config
    assert (config.beta, config.gamma, config.forget_weight, config.retain_nll_weight) == (2.5, 0.0, 0.1375, 1.0)
    batch = Batch.of(forgetting(2, 2))
    found = tiny.algorithm("simnpo").loss(batch, score(tiny.model(), batch), None)
    assert [(term.name, term.weight) for term in found.terms] == [("forget", 0.1375), ("retain", 1.0)]


# Gradient ascent


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_gradient_ascent_and_gradient_difference(weight: float) -> None:
    def loss(policy: dict[str, Any]) -> float:
        return -nll(policy["forget"]) + weight * nll(policy["retain"])

    case = {"loss": "gradient_ascent", "hyper": {"retain_nll_weight": weight}}
    metrics = {"forget_nll": nll(FORGET), "forget_loss": -nll(FORGET), "retain_loss": nll(RETAIN)}
    hold({**case, "policy": copied(forget=FORGET, retain=RETAIN)}, loss, **metrics)


def test_gradient_ascent_forgets_alone_unless_asked() -> None:
    assert tiny.algorithm("gradient_ascent").config.retain_nll_weight == 0.0


# What is retained

METHODS = ["npo", "simnpo", "gradient_ascent"]


def roles(algorithm: Algorithm[Any], groups: list[Group]) -> list[list[str]]:
    return [[one.role for one in group.completions] for group in algorithm.collate(groups)]


@pytest.mark.parametrize("name", METHODS)
def test_what_is_retained_is_dropped_where_it_has_no_weight(name: str) -> None:
    groups = forgetting(2, 2)
    without = tiny.algorithm(name, retain_nll_weight=0.0)
    assert roles(without, groups) == [["forget"], [], ["forget"], []]
    assert roles(tiny.algorithm(name, retain_nll_weight=1.0), groups) == [["forget"], ["retain"]] * 2
    assert [len(group.completions) for group in groups] == [1] * 4  # those of the data are left as they were
    assert roles(without, forgetting(2, 0)) == [["forget"]] * 2
    assert len(Batch.of(without.collate(groups))) == 2


@pytest.mark.parametrize("name", METHODS)
def test_data_without_anything_to_retain_is_refused_with_the_way_out(name: str) -> None:
    algorithm = tiny.algorithm(name, retain_nll_weight=1.0)
    with pytest.raises(DataError, match="--retain_nll_weight 0"):
        algorithm.collate(forgetting(2, 0))
    assert algorithm.collate([]) == []
    with pytest.raises(DataError, match="split 'retain'"):
        tiny.algorithm("npo", retain_kl_weight=0.5).collate(forgetting(2, 0))


def test_npo_asks_for_what_its_weights_need() -> None:
    assert tiny.algorithm("npo").needs == Needs(reference=True)
    kl = tiny.algorithm("npo", retain_kl_weight=0.5)
    assert kl.needs == Needs(reference=True, vocabulary=True, reference_vocabulary=True)
    groups = forgetting(1, 1)
    assert [one.completions[0].referenced for one in tiny.algorithm("npo").collate(groups)] == [True, False]
    assert [one.completions[0].referenced for one in kl.collate(groups)] == [True, True]


@pytest.mark.parametrize(
    ("settings", "weight"),
    [
        ({}, 1.0),
        ({"retain_kl_weight": 0.5}, 0.0),
        ({"retain_kl_weight": 0.5, "retain_nll_weight": 0.3}, 0.3),
        ({"retain_nll_weight": 0.0}, 0.0),
    ],
)
def test_npo_retains_by_its_nll_unless_a_kl_does(settings: dict[str, float], weight: float) -> None:
    assert tiny.algorithm("npo", **settings).config.nll_weight == weight


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_of_a_step_does_not_depend_on_its_micro_batches(name: str) -> None:
    algorithm = tiny.algorithm(name, retain_nll_weight=0.8)
    groups = algorithm.collate(forgetting(4, 3))
    model, other = tiny.model(), tiny.model(1)
    totals = counts(Batch.of(groups))

    def part(some: list[Group]) -> float:
        batch = Batch.of(some)
        loss = algorithm.loss(batch, score(model, batch), score(other, batch).detach())
        return float(reduce(loss, batch, totals)[0].detach())

    assert part(groups[:1]) + part(groups[1:5]) + part(groups[5:]) == pytest.approx(part(groups), rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_losses_and_gradients_are_finite_far_out(name: str) -> None:
    for forget, reference in (([-900.0], [-0.1]), ([-0.1], [-900.0]), ([-300.0, -300.0], [-1.0, -1.0])):
        data = {"ref_forget": [reference]} if name == "npo" else {}
        policy = copied(forget=[forget], retain=[[-700.0]])
        case = {"loss": name, "kind": "loss", "hyper": {}, "policy": policy, "data": data}
        found = run_case(case, dtype=torch.float32)
        assert all(map(math.isfinite, [found["loss"], *found["grad"]["forget"][0], *found["grad"]["retain"][0]]))
        assert found["grad"]["forget"][0][0] >= 0


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("npo", {"beta": 0.0}, "beta must be positive"),
        ("npo", {"forget_weight": -1.0}, "forget_weight must not be negative"),
        ("npo", {"retain_nll_weight": -1.0}, "retain_nll_weight must not be negative"),
        ("npo", {"retain_kl_weight": -1.0}, "retain_kl_weight must not be negative"),
        ("simnpo", {"beta": -1.0}, "beta must be positive"),
        ("simnpo", {"forget_weight": -1.0}, "forget_weight must not be negative"),
        ("simnpo", {"retain_nll_weight": -1.0}, "retain_nll_weight must not be negative"),
        ("gradient_ascent", {"retain_nll_weight": -1.0}, "retain_nll_weight must not be negative"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        tiny.algorithm(name, **wrong)
