"""Reward models and the preference model, against their equations."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
import torch

from tests.zoo.byhand import flat, hold, mean, sigmoid, softplus
from xpo import Batch, Completion, DataError, Group, Scores
from xpo.api.loss import counts, reduce
from xpo.testing import run_case
from xpo_zoo.rewards.bradley_terry import BradleyTerry, BradleyTerryConfig, normalised
from xpo_zoo.rewards.kwise import KWise
from xpo_zoo.rewards.plackett_luce import PlackettLuce
from xpo_zoo.rewards.preference_model import PreferenceModel


def numbers(seed: int, count: int, scale: float = 2.0) -> list[float]:
    rng = random.Random(seed)
    return [round(scale * rng.uniform(-1, 1), 4) for _ in range(count)]


def pairs(**data: Any) -> dict[str, Any]:
    policy = {"chosen_reward": numbers(1, 5), "rejected_reward": numbers(2, 5)}
    return {"loss": "rm_bradley_terry", "hyper": {}, "policy": policy, "data": data}


def read(groups: list[Group], rewards: list[float], dtype: torch.dtype = torch.float64) -> tuple[Batch, Scores]:
    """A batch of which a reward model reads the given numbers."""
    batch = Batch.of(groups, dtype=dtype)
    nan = torch.full(batch.mask.shape, math.nan, dtype=dtype)
    return batch, Scores(nan, batch.mask, rewards=torch.tensor(rewards, dtype=dtype, requires_grad=True))


@pytest.mark.parametrize(("center", "l2"), [(0.0, 0.0), (0.01, 0.0), (0.0, 0.002), (0.3, 0.1)])
@pytest.mark.parametrize("margin", [None, [1.0, 0.33, 0.66, 0.0, 3.0]])
def test_bradley_terry_is_its_equation(center: float, l2: float, margin: list[float] | None) -> None:
    given = pairs(**({} if margin is None else {"margin": margin}))
    given["hyper"] = {"center_coef": center, "l2_coef": l2}

    def loss(policy: dict[str, Any]) -> float:
        both = list(zip(policy["chosen_reward"], policy["rejected_reward"], margin or [0.0] * 5, strict=True))
        return mean(
            [softplus(-(w - l - m)) + center * (w + l) ** 2 + l2 * (w * w + l * l) / 2 for w, l, m in both]  # noqa: E741
        )

    w, l = given["policy"]["chosen_reward"], given["policy"]["rejected_reward"]  # noqa: E741
    metrics = {
        "margin": mean(w) - mean(l),
        "accuracy": mean([float(a > b) for a, b in zip(w, l, strict=True)]),
        "mean_reward": mean(w + l),
        "min_reward": min(w + l),
        "max_reward": max(w + l),
        "rewards/chosen": mean(w),
    }
    hold(given, loss, **metrics)


def test_rewards_are_centred_unless_told_otherwise() -> None:
    assert BradleyTerryConfig().center_coef == 0.01
    assert BradleyTerry.aliases["center_rewards_coefficient"] == "center_coef"


def paired(margins: list[float | None]) -> list[Group]:
    return [
        Group(
            [1],
            [Completion([2, 9], "chosen"), Completion([3, 4, 9], "rejected")],
            pairs=[(0, 1)],
            row=row,
            columns={} if margin is None else {"margin": margin},
        )
        for row, margin in enumerate(margins)
    ]


def test_a_row_without_a_margin_has_none() -> None:
    batch, policy = read(paired([1.0, None]), [0.5, 0.5, 0.5, 0.5])
    losses = BradleyTerry().loss(batch, policy, None).terms[0].values.tolist()
    assert losses == pytest.approx([softplus(1.0), softplus(0.0)])


def test_the_log_of_one_plus_exp_overflows_elsewhere_but_not_here() -> None:
    """OpenRLHF's log(1 + exp(x)) is infinite at x = 100."""
    batch, policy = read(paired([None, None]), [-400.0, 500.0, 300.0, -600.0], torch.float32)
    method = BradleyTerry(BradleyTerryConfig(center_coef=0.0))
    value, _ = reduce(method.loss(batch, policy, None), batch, counts(batch))
    value.backward()
    assert float(value.detach()) == pytest.approx(450.0)
    assert policy.rewards is not None
    assert policy.rewards.grad.tolist() == pytest.approx([-0.5, 0.5, 0.0, 0.0])


def test_rewards_are_normalised_by_the_mean_of_demonstrations() -> None:
    rewards, bias = normalised(torch.tensor([0.0, 3.0]), torch.tensor([1.0, 2.0]))
    assert (rewards.tolist(), bias.item()) == ([-1.5, 1.5], 1.5)
    data = {"rewards": [0.5, -1.0], "demonstration_rewards": [2.0, 4.0, 3.0]}
    found = run_case({"loss": "rm_normalise", "kind": "function", "data": data})["outputs"]
    assert found == {"bias": 3.0, "rewards": [-2.5, -4.0]}


def kwise(rewards: list[list[float]], ranks: list[list[int]]) -> float:
    found = []
    for row, order in zip(rewards, ranks, strict=True):
        terms = [softplus(-(row[i] - row[j])) for i in range(len(row)) for j in range(len(row)) if order[i] < order[j]]
        found.append(sum(terms) / max(len(terms), 1))
    return mean(found)


def plackett_luce(rewards: list[list[float]], ranks: list[list[int]]) -> float:
    found = []
    for row, order in zip(rewards, ranks, strict=True):
        left, total = [value for _, value in sorted(zip(order, row, strict=True))], 0.0
        while left:
            total += math.log(sum(map(math.exp, left))) - left.pop(0)
        found.append(total)
    return mean(found)


@pytest.mark.parametrize(("name", "formula"), [("rm_kwise", kwise), ("rm_plackett_luce", plackett_luce)])
def test_ranked_lists_are_their_equations(name: str, formula: Callable[..., float]) -> None:
    ranks = [[2, 0, 3, 1], [1, 0], [4, 2, 0, 1, 3]]
    rewards = [numbers(10 + len(row), len(row)) for row in ranks]
    given = {"loss": name, "policy": {"rewards": rewards}, "data": {"rank": ranks}}
    hold(given, lambda policy: formula(policy["rewards"], ranks), mean_reward=mean(flat(rewards)))


def test_ties_make_no_pair_and_do_not_count() -> None:
    ranks = [[0, 1, 1, 2], [0, 0, 1], [1, 1, 1]]
    rewards = [numbers(20 + index, len(row)) for index, row in enumerate(ranks)]
    given = {"loss": "rm_kwise", "policy": {"rewards": rewards}, "data": {"rank": ranks}}
    hold(given, lambda policy: kwise(policy["rewards"], ranks), **{"share/tied": 1 / 3})


def ranked(scores: list[float | None], row: int = 0) -> Group:
    return Group([1], [Completion([2 + k, 9], score=score) for k, score in enumerate(scores)], row=row)


@pytest.mark.parametrize("method", [KWise(), PlackettLuce()], ids=lambda method: method.name)
def test_two_in_a_list_are_a_pair_of_bradley_terry(method: Any) -> None:
    batch, policy = read([ranked([0.1, 0.9])], [0.3, -0.8])
    assert method.loss(batch, policy, None).terms[0].values.tolist() == pytest.approx([softplus(0.3 + 0.8)])


@pytest.mark.parametrize("method", [KWise(), PlackettLuce()], ids=lambda method: method.name)
def test_a_list_without_an_order_adds_nothing_and_is_counted(method: Any) -> None:
    batch, policy = read([ranked([1.0, 1.0, 1.0]), ranked([2.0, 1.0])], [0.1, 0.2, 0.3, 0.0, 0.0])
    loss = method.loss(batch, policy, None)
    assert loss.terms[0].values.tolist() == pytest.approx([0.0, math.log(2)])
    assert loss.metrics["share/tied"].tolist() == [1.0, 0.0]
    assert {*loss.metrics, *loss.lowest, *loss.highest} == set(method.metrics)


@pytest.mark.parametrize("method", [KWise(), PlackettLuce()], ids=lambda method: method.name)
def test_a_missing_score_is_named(method: Any) -> None:
    with pytest.raises(DataError, match="row 5: the column scores holds no number for completion 2 of 3"):
        method.collate([ranked([1.0, None, 0.0], row=5)])
    groups = [ranked([1.0, 0.0])]
    assert method.collate(groups) == groups


def test_the_likelihoods_of_all_orders_sum_to_one() -> None:
    rewards = numbers(31, 4)
    total = 0.0
    for order in permutations(range(4)):
        batch, policy = read([ranked([float(score) for score in order])], rewards)
        total += math.exp(-PlackettLuce().loss(batch, policy, None).terms[0].values.item())
    assert total == pytest.approx(1.0)


@pytest.mark.parametrize("target", [None, [1.0, 0.0, 0.7, 0.5]])
def test_the_preference_model_is_its_equation(target: list[float] | None) -> None:
    given = {
        "loss": "preference_model",
        "policy": {"logit_ab": numbers(41, 4), "logit_ba": numbers(42, 4)},
        "data": {} if target is None else {"target": target},
    }
    targets = target or [1.0] * 4

    def logits(policy: dict[str, Any]) -> list[float]:
        return [(a - b) / 2 for a, b in zip(policy["logit_ab"], policy["logit_ba"], strict=True)]

    def loss(policy: dict[str, Any]) -> float:
        return mean([t * softplus(-z) + (1 - t) * softplus(z) for z, t in zip(logits(policy), targets, strict=True)])

    decided = [(z > 0) == (t > 0.5) for z, t in zip(logits(given["policy"]), targets, strict=True) if t != 0.5]
    p_a = mean([sigmoid(z) for z in logits(given["policy"])])
    hold(given, loss, p_a=p_a, accuracy=mean([float(right) for right in decided]))


def test_both_completions_are_read_together_in_both_orders() -> None:
    (group,) = paired([None])
    (made,) = PreferenceModel().collate([group])
    assert [(one.role, one.ids) for one in made.completions] == [
        ("chosen_first", [2, 9, 3, 4, 9]),
        ("rejected_first", [3, 4, 9, 2, 9]),
    ]
    assert made.pairs == []
    assert (made.prompt_ids, made.row) == (group.prompt_ids, group.row)
    assert len(group.completions[0].ids) == 2  # the data are left as they were


def test_the_two_probabilities_of_a_pair_sum_to_one() -> None:
    method = PreferenceModel()
    groups = method.collate(paired([None, None]))
    loss = method.loss(*read(groups, [0.7, -0.4, -0.4, 0.7]), None)
    assert float(loss.metrics["p_a"].sum()) == pytest.approx(1.0)


def test_a_target_that_is_no_probability_is_refused() -> None:
    (group,) = paired([None])
    group.columns["target"] = 1.5
    with pytest.raises(DataError, match=r"row 0: the column target holds 1\.5"):
        PreferenceModel().collate([group])
