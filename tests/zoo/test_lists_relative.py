"""Methods of lists that read log-ratios to a reference: their equations in plain Python, and what follows of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest

from tests import tiny
from tests.zoo.byhand import hold, mean, near, ragged, softplus
from tests.zoo.ranked import (
    SCORES,
    WITH_TIES,
    case,
    holds,
    listed,
    ordered,
    pairs_of,
    ratios,
    say,
    slopes,
    softmax,
)


def dpo_pl(beta: float) -> Callable[..., float]:
    def of_list(said: list[float], scores: list[float]) -> float:
        if len(set(scores)) == 1:
            return 0.0
        left, total = [beta * said[index] for index in ordered(scores)], 0.0
        while left:
            total += math.log(sum(map(math.exp, left))) - left.pop(0)
        return total

    return of_list


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_dpo_pl_is_its_equation(beta: float) -> None:
    for scores in (SCORES, WITH_TIES):
        given = case("dpo_pl", {"beta": beta}, scores)
        said = ratios(given, given["policy"])
        clear = [n for n, row in enumerate(scores) if len(set(row)) > 1]
        best = mean([beta * said[n][ordered(scores[n])[0]] for n in clear])
        worst = mean([beta * said[n][ordered(scores[n])[-1]] for n in clear])
        metrics = {"rewards/best": best, "rewards/worst": worst, "rewards/margins": best - worst}
        holds(given, dpo_pl(beta), **metrics)


def test_dpo_pl_of_two_is_dpo_and_all_orders_sum_to_one() -> None:
    algorithm = tiny.algorithm("dpo_pl", beta=0.7)
    values = algorithm.loss(*say([listed([0.0, 1.0])], [0.4, -1.1])).terms[0].values
    assert values.tolist() == pytest.approx([softplus(0.7 * 1.5)])
    total = 0.0
    for order in permutations([0.0, 1.0, 2.0, 3.0]):
        batch = say([listed(list(order))], [0.4, -1.1, 0.3, 2.0])
        total += math.exp(-algorithm.loss(*batch).terms[0].values.item())
    assert total == pytest.approx(1.0)


@pytest.mark.parametrize(("beta", "temperature"), [(0.1, 1.0), (1.5, 0.2), (0.5, 4.0)])
def test_listnet_and_info_nca_are_their_equations(beta: float, temperature: float) -> None:
    def of_list(said: list[float], scores: list[float]) -> float:
        target = softmax([score / temperature for score in scores])
        return -sum(t * math.log(q) for t, q in zip(target, softmax([beta * one for one in said]), strict=True))

    for scores in (SCORES, WITH_TIES):
        holds(case("listnet", {"beta": beta, "label_temperature": temperature}, scores), of_list)
        holds(case("info_nca", {"beta": beta, "alpha": temperature}, scores), of_list)


@pytest.mark.parametrize("average", [True, False])
def test_all_pairs_is_its_equation(average: bool) -> None:
    def of_list(said: list[float], scores: list[float]) -> float:
        found = [softplus(-0.4 * (said[i] - said[j])) for i, j in pairs_of(scores)]
        return sum(found) / (max(len(found), 1) if average else 1)

    for scores in (SCORES, WITH_TIES):
        holds(case("pairwise_logistic_list", {"beta": 0.4, "average": average}, scores), of_list)


@pytest.mark.parametrize(("beta_pi", "beta_r"), [(0.1, 0.1), (0.5, 0.2), (2.0, 1.0)])
def test_exo_is_the_reverse_kl(beta_pi: float, beta_r: float) -> None:
    def of_list(said: list[float], scores: list[float]) -> float:
        q, p = softmax([beta_pi * one for one in said]), softmax([score / beta_r for score in scores])
        return sum(a * (math.log(a) - math.log(b)) for a, b in zip(q, p, strict=True))

    for scores in (SCORES, WITH_TIES):
        holds(case("exo_rw", {"beta_pi": beta_pi, "beta_r": beta_r}, scores), of_list)


def test_exo_is_nothing_where_the_policy_says_what_the_scores_say() -> None:
    scores = [0.9, 0.1, 0.4]
    algorithm = tiny.algorithm("exo_list", beta_pi=0.5, beta_r=0.25)
    loss = algorithm.loss(*say([listed(list(scores))], [score / 0.25 / 0.5 for score in scores]))
    assert loss.terms[0].values.tolist() == pytest.approx([0.0], abs=1e-12)


@pytest.mark.parametrize(("beta", "alpha"), [(0.01, 0.5), (1.0, 0.1), (0.5, 3.0)])
def test_nca_is_its_equation(beta: float, alpha: float) -> None:
    def of_list(said: list[float], scores: list[float]) -> float:
        target = softmax([score / alpha for score in scores])
        return sum(
            t * softplus(-beta * one) + softplus(beta * one) / len(said) for t, one in zip(target, said, strict=True)
        )

    for scores in (SCORES, WITH_TIES):
        holds(case("nca", {"beta": beta, "alpha": alpha}, scores), of_list)


def d2o(alpha: float, beta: float) -> dict[str, Any]:
    generated = [ragged(60, 3), ragged(61, 2), ragged(62, 1)]
    negative = ragged(63, 3)
    return {
        "loss": "d2o",
        "hyper": {"alpha": alpha, "beta": beta},
        "policy": {"generated": generated, "negative": negative},
        "data": {"ref_minus_generated": near(generated, 64), "ref_plus_negative": near(negative, 65)},
    }


@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 0.1), (0.5, 2.0), (2.0, 0.5)])
def test_d2o_is_its_equation(alpha: float, beta: float) -> None:
    given = d2o(alpha, beta)

    def loss(policy: dict[str, Any]) -> float:
        found = []
        for n in range(3):
            both = zip(policy["generated"][n], given["data"]["ref_minus_generated"][n], strict=True)
            positive = mean([sum(a) - sum(b) for a, b in both])
            negative = sum(policy["negative"][n]) - sum(given["data"]["ref_plus_negative"][n])
            found.append(softplus(-(beta * positive - alpha * negative)))
        return mean(found)

    hold(given, loss)


def test_d2o_averages_inside_the_sigmoid() -> None:
    """A mean of K losses would be another one, and never a smaller one."""
    groups = [listed([1.0, 1.0, 0.0])]
    algorithm = tiny.algorithm("d2o", beta=1.0, alpha=1.0)
    found = algorithm.loss(*say(algorithm.collate(groups), [3.0, -2.0, 0.5])).terms[0].values.item()
    assert found == pytest.approx(softplus(-(0.5 - 0.5)))
    assert found < mean([softplus(-2.5), softplus(2.5)])


def test_the_worst_of_a_list_is_the_negative_one() -> None:
    groups = [listed([0.5, 0.1, 0.9]), listed([0.0, 1.0])]
    made = tiny.algorithm("d2o").collate(groups)
    assert [[one.role for one in group.completions] for group in made] == [
        ["generated", "negative", "generated"],
        ["negative", "generated"],
    ]
    assert all(one.role == "completion" for group in groups for one in group.completions)
    assert slopes("d2o", groups, [0.0] * 5) == pytest.approx([-0.0125, 0.025, -0.0125, 0.025, -0.025])
