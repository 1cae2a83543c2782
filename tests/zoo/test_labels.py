"""Methods on labelled completions other than KTO, against their equations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.zoo.byhand import flat, hold, mean, near, ragged, sigmoid, softplus
from xpo import Batch, Completion, DataError, Group, Scores
from xpo.api.loss import counts, reduce
from xpo.testing import run_case
from xpo_zoo.labels.apo_zero_unpaired import APOZeroUnpaired, APOZeroUnpairedConfig
from xpo_zoo.labels.bco import BCO, BCOConfig, density_weights
from xpo_zoo.labels.binary_classifier import BinaryClassifier, BinaryClassifierConfig
from xpo_zoo.labels.dro_v import DROV, DROVConfig

LABELS = [True, False, False, True, True, False]


def case(loss: str, hyper: dict[str, Any], *, spread: float = 0.5, **data: Any) -> dict[str, Any]:
    y = ragged(1, len(LABELS))
    return {
        "loss": loss,
        "hyper": hyper,
        "policy": {"completion": y},
        "data": {"ref_completion": near(y, 2, spread), "label": LABELS, **data},
    }


def logratios(given: dict[str, Any], policy: dict[str, Any] | None = None) -> list[float]:
    both = zip((policy or given["policy"])["completion"], given["data"]["ref_completion"], strict=True)
    return [sum(a) - sum(b) for a, b in both]


def make(ratios: Sequence[float], labels: Sequence[bool], dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
    """A batch with given log-ratios, the policy's scores and the reference's."""
    groups = [Group([1 + i], [Completion([0], label=label)], row=i) for i, label in enumerate(labels)]
    batch = Batch.of(groups, dtype=dtype)
    values = torch.tensor([[x] for x in ratios], dtype=dtype)
    return batch, Scores(values.requires_grad_(), batch.mask), Scores(torch.zeros_like(values), batch.mask)


def bco(
    beta: float, before: tuple[float, int] = (0.0, 0), density: list[float] | None = None, **weights: float
) -> None:
    data: dict[str, Any] = {"delta_prev": before[0], "delta_count_prev": before[1]}
    data |= {} if density is None else {"undesirable_density_weight": density}
    given = case("bco_unpaired", {"beta": beta, **weights}, **data)
    now = mean([beta * ratio for ratio in logratios(given)])
    delta = (before[0] * before[1] + now) / (before[1] + 1)

    def loss(policy: dict[str, Any]) -> float:
        found = []
        for i, (ratio, label) in enumerate(zip(logratios(given, policy), LABELS, strict=True)):
            z = beta * ratio - delta
            weight = weights.get("desirable_weight" if label else "undesirable_weight", 1.0)
            weight *= 1.0 if label or density is None else density[i]
            found.append(weight * softplus(-z if label else z))
        return mean(found)

    hold(given, loss, delta=delta)


def test_bco_is_its_equation() -> None:
    bco(0.1)
    bco(1.5, (0.4, 3))
    bco(0.3, (-0.2, 9), [7.0, 0.5, 2.25, 7.0, 7.0, 10.0])
    bco(0.3, desirable_weight=2.0, undesirable_weight=0.5)
    bco(0.3, (0.1, 1), [1.0, 0.5, 2.0, 1.0, 1.0, 3.0], undesirable_weight=0.5)


def test_the_shift_of_bco_is_used_and_is_not_gone_as_in_trl() -> None:
    """TRL 1.16 left delta out: its loss is that of the binary classifier."""
    hyper = {"beta": 1.0}
    shifted = run_case(case("bco_unpaired", hyper, delta_prev=2.0, delta_count_prev=50))["loss"]
    plain = run_case(case("binary_classifier", hyper))["loss"]
    assert abs(shifted - plain) > 0.01
    groups = make([3.0, 1.0], [True, False])
    first = BCO(BCOConfig(beta=1.0)).loss(*groups).terms[0].values.tolist()[0]
    assert first == pytest.approx(softplus(-(3.0 - 2.0)))


def test_the_shift_moves_in_training_only_and_stands_in_the_checkpoint() -> None:
    algorithm = BCO(BCOConfig(beta=0.5))
    assert algorithm.state_dict() == {"delta": 0.0, "delta_count": 0}
    algorithm.loss(*make([4.0, 2.0], [True, False]))
    assert algorithm.state_dict() == {"delta": pytest.approx(1.5), "delta_count": 1}
    with torch.no_grad():
        algorithm.loss(*make([40.0, 20.0], [True, False]))
    assert algorithm.state_dict() == {"delta": pytest.approx(1.5), "delta_count": 1}
    algorithm.loss(*make([0.0, 2.0], [True, False]))
    assert algorithm.state_dict() == {"delta": pytest.approx(1.0), "delta_count": 2}
    other = BCO()
    other.load_state_dict(algorithm.state_dict())
    assert other.state_dict() == algorithm.state_dict()


def test_the_shift_is_the_same_on_all_ranks_and_idle_ones_add_nothing() -> None:
    batch, policy, reference = make([4.0, 2.0], [True, False])
    other = torch.tensor([12.0, 1.0], dtype=torch.float64)  # another rank's sum and count
    algorithm = BCO(BCOConfig(beta=1.0))
    algorithm.loss(replace(batch, reduce=lambda mine: mine + other), policy, reference)
    assert algorithm.delta == pytest.approx(18 / 3)
    algorithm = BCO(BCOConfig(beta=1.0))
    algorithm.loss(replace(batch, reduce=lambda mine: mine + other, idle=True), policy, reference)
    assert algorithm.delta == pytest.approx(12.0)
    algorithm = BCO(BCOConfig(beta=1.0))
    algorithm.loss(replace(batch, idle=True), policy, reference)
    assert algorithm.state_dict() == {"delta": 0.0, "delta_count": 0}


def test_rows_without_a_density_weight_count_as_they_are() -> None:
    batch, policy, reference = make([0.0] * 3, [True, False, False])
    column = torch.tensor([math.nan, math.nan, 3.0], dtype=torch.float64)
    given = replace(batch, columns={"undesirable_density_weight": column})
    losses = BCO().loss(given, policy, reference).terms[0].values.tolist()
    assert losses == pytest.approx([math.log(2), math.log(2), 3 * math.log(2)])
    assert BCO().value_at_reference(given) == pytest.approx(mean(losses))


def test_density_weights_are_odds_within_bounds() -> None:
    found = density_weights(torch.tensor([0.01, 0.4, 0.75, 0.999]), least=0.1, most=5.0).tolist()
    assert found == pytest.approx([0.1, 2 / 3, 3.0, 5.0])
    function = {"loss": "bco_density_weight", "kind": "function", "hyper": {"min": 0.25, "max": 3.0}}
    outputs = run_case({**function, "data": {"p_desirable": [0.1, 0.5, 0.9]}})["outputs"]
    assert outputs["weight"] == pytest.approx([0.25, 1.0, 3.0])


def test_the_binary_classifier_is_its_equation() -> None:
    for beta in (0.1, 2.0):
        given = case("binary_classifier", {"beta": beta})

        def loss(policy: dict[str, Any], beta: float = beta, given: dict[str, Any] = given) -> float:
            ratios = logratios(given, policy)
            return mean([softplus(-beta * r if label else beta * r) for r, label in zip(ratios, LABELS, strict=True)])

        ratios = [ratio for ratio, label in zip(logratios(given), LABELS, strict=True) if label]
        hold(given, loss, **{"rewards/chosen": beta * mean(ratios), "share/desirable": 0.5})


def test_apo_zero_is_its_equation() -> None:
    for beta, desirable, undesirable in ((0.1, 1.0, 1.0), (1.5, 2.0, 0.5)):
        given = case(
            "apo_zero_unpaired",
            {"beta": beta, "desirable_weight": desirable, "undesirable_weight": undesirable},
        )

        def loss(
            policy: dict[str, Any],
            beta: float = beta,
            weights: tuple[float, float] = (desirable, undesirable),
            given: dict[str, Any] = given,
        ) -> float:
            ratios = logratios(given, policy)
            return mean(
                [
                    weights[0] * (1 - sigmoid(beta * r)) if label else weights[1] * sigmoid(beta * r)
                    for r, label in zip(ratios, LABELS, strict=True)
                ]
            )

        hold(given, loss)


def test_apo_zero_is_kto_without_a_reference_point() -> None:
    y = ragged(4, 6)
    weights = {"beta": 0.4, "desirable_weight": 1.2, "undesirable_weight": 0.8}
    kl = {"kl_policy": ragged(5, 6), "kl_ref": [[0.0] * 9] * 6}  # a negative KL, clamped at 0
    given = {"policy": {"completion": y}, "data": {"ref_completion": near(y, 6), "label": LABELS}, "hyper": weights}
    ours = run_case({"loss": "apo_zero_unpaired", **given})
    kl["kl_ref"] = [[0.0] * len(row) for row in kl["kl_policy"]]
    kto = run_case({**given, "loss": "kto", "data": {**given["data"], **kl}})
    assert ours["loss"] == pytest.approx(kto["loss"])
    assert flat(ours["grad"]["completion"]) == pytest.approx(flat(kto["grad"]["completion"]))


def dro_v(tau: float) -> dict[str, Any]:
    y = ragged(11, 5)
    return {
        "loss": "dro_v",
        "hyper": {"tau": tau},
        "policy": {"completion": y, "value": [0.3, -0.2, 0.8, 0.0, -1.1]},
        "data": {"ref_completion": near(y, 12), "reward": [1.0, 0.0, -0.5, 0.7, 2.0]},
    }


@pytest.mark.parametrize("tau", [1.0, 0.1, 3.0])
def test_dro_v_is_its_equation_and_neither_part_moves_the_other_model(tau: float) -> None:
    given = dro_v(tau)
    rewards = given["data"]["reward"]
    fixed_ratios, fixed_values = logratios(given), list(given["policy"]["value"])

    def parts(policy: dict[str, Any]) -> tuple[float, float]:
        ratios, values = logratios(given, policy), policy["value"]
        actor = [-(r - v) * x + tau / 2 * x * x for r, v, x in zip(rewards, fixed_values, ratios, strict=True)]
        critic = [(r - v - tau * x) ** 2 / 2 for r, v, x in zip(rewards, values, fixed_ratios, strict=True)]
        return mean(actor), mean(critic)

    actor, critic = parts(given["policy"])
    hold(given, lambda policy: sum(parts(policy)), policy_loss=actor, value_loss=critic, logratios=mean(fixed_ratios))


def test_dro_v_is_at_rest_where_the_log_ratio_is_the_advantage_over_tau() -> None:
    given = dro_v(0.5)
    wanted = [(r - v) / 0.5 for r, v in zip(given["data"]["reward"], given["policy"]["value"], strict=True)]
    given["data"]["ref_completion"] = [
        [row[0] - ratio, *row[1:]] for row, ratio in zip(given["policy"]["completion"], wanted, strict=True)
    ]
    found = run_case(given)
    assert flat(list(found["grad"].values())) == pytest.approx(
        [0.0] * len(flat(list(found["grad"].values()))), abs=1e-12
    )


def test_the_value_is_that_of_the_prompt_not_of_the_end_of_the_completion() -> None:
    groups = [Group([1], [Completion([5, 6, 7], score=1.0)])]
    batch = Batch.of(groups, dtype=torch.float64)
    values = torch.tensor([[0.25, 3.0, -4.0]], dtype=torch.float64, requires_grad=True)
    zeros = torch.zeros(1, 3, dtype=torch.float64)
    loss = DROV(DROVConfig()).loss(batch, Scores(zeros, batch.mask, values=values), Scores(zeros, batch.mask))
    assert loss.metrics["values"].tolist() == [0.25]
    sum(term.values.sum() for term in loss.terms).backward()
    assert values.grad.tolist() == [[-0.75, 0.0, 0.0]]


@pytest.mark.parametrize("score", [None, math.nan, math.inf])
def test_a_missing_reward_is_named(score: float | None) -> None:
    good = Group([1], [Completion([5], score=1.0)], row=3)
    with pytest.raises(DataError, match=r"row 7: the column score \(or reward, or label\) holds no number"):
        DROV().collate([good, Group([1], [Completion([5], score=score)], row=7)])
    assert DROV().collate([good]) == [good]


METHODS = [
    BCO(BCOConfig(beta=1.0, desirable_weight=2.0)),
    BinaryClassifier(BinaryClassifierConfig(beta=1.0)),
    APOZeroUnpaired(APOZeroUnpairedConfig(beta=1.0, undesirable_weight=3.0)),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_value_at_the_reference_is_known_beforehand(method: Any) -> None:
    batch, policy, reference = make([0.0] * 3, [True, False, True])
    expected = method.value_at_reference(batch)
    value, _ = reduce(method.loss(batch, policy, reference), batch, counts(batch))
    assert float(value.detach()) == pytest.approx(expected)


def test_the_value_of_bco_is_unknown_once_its_shift_has_moved() -> None:
    method = BCO()
    method.load_state_dict({"delta": 0.5, "delta_count": 2})
    assert method.value_at_reference(make([0.0], [True])[0]) is None


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_desirable_completions_are_raised_and_undesirable_ones_lowered(method: Any) -> None:
    """The undesirable term of align-anything's KTO has the wrong sign."""
    batch, policy, reference = make([0.4, -0.2, 0.1], [True, False, False])
    value, _ = reduce(method.loss(batch, policy, reference), batch, counts(batch))
    value.backward()
    slopes = policy.logps.grad.flatten().tolist()
    assert slopes[0] < 0 < min(slopes[1:])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_hundreds_of_nats_stay_finite(method: Any) -> None:
    batch, policy, reference = make([900.0, 900.0, -900.0, -900.0], [True, False, True, False], torch.float32)
    value, _ = reduce(method.loss(batch, policy, reference), batch, counts(batch))
    value.backward()
    assert math.isfinite(float(value.detach()))
    assert policy.logps.grad.isfinite().all()
