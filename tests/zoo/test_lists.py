"""Methods on scored lists, against their equations."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest
import torch

from tests.zoo.byhand import flat, hold, mean, near, ragged, sigmoid, softplus
from xpo import Algorithm, Batch, Completion, DataError, Group, Scores, SettingError
from xpo.api.loss import counts, reduce
from xpo.plugins import load
from xpo.testing import run_case

Rows = list[list[float]]

SIZES = (4, 2, 5, 3)
#: The second list has a tie in the middle of the ranking, the third one in front; the last has no order.
SCORES = [[0.9, 0.1, 0.55, 0.3], [0.2, 0.8], [0.45, 0.7, 0.1, 0.45, 0.2], [0.6, 0.2, 0.9]]
WITH_TIES = [[1.0, 0.5, 0.5, 0.0], [0.2, 0.8], [0.7, 0.7, 0.1, 0.45, 0.2], [0.3, 0.3, 0.3]]


def method(name: str, **settings: Any) -> Algorithm[Any]:
    cls = load().algorithm(name).cls
    return cls(cls.Config(**settings))


def case(
    loss: str, hyper: dict[str, Any], scores: Rows = SCORES, *, spread: float = 0.5, **data: Any
) -> dict[str, Any]:
    completions = [ragged(10 + index, len(row), longest=4) for index, row in enumerate(scores)]
    return {
        "loss": loss,
        "hyper": hyper,
        "policy": {"completions": completions},
        "data": {"ref_completions": near(completions, 9, spread), "rewards": scores, **data},
    }


def sums(rows: Any) -> Rows:
    return [[sum(tokens) for tokens in row] for row in rows]


def means(rows: Any) -> Rows:
    return [[sum(tokens) / len(tokens) for tokens in row] for row in rows]


def ratios(given: dict[str, Any], policy: dict[str, Any]) -> Rows:
    both = zip(sums(policy["completions"]), sums(given["data"]["ref_completions"]), strict=True)
    return [[a - b for a, b in zip(*rows, strict=True)] for rows in both]


def softmax(values: list[float]) -> list[float]:
    total = sum(math.exp(value - max(values)) for value in values)
    return [math.exp(value - max(values)) / total for value in values]


def ordered(scores: list[float]) -> list[int]:
    """Indices from the best to the worst, ties in the order of the data."""
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def pairs_of(scores: list[float]) -> list[tuple[int, int]]:
    return [(i, j) for i in range(len(scores)) for j in range(len(scores)) if scores[i] > scores[j]]


def holds(
    given: dict[str, Any], of_list: Callable[..., float], read: Callable[..., Rows] | None = None, **metrics: float
) -> None:
    """``of_list`` of what a list's completions say and its scores is the loss of a list; lists count alike."""
    scores = given["data"]["rewards"]

    def loss(policy: dict[str, Any]) -> float:
        said = ratios(given, policy) if read is None else read(policy["completions"])
        return mean([of_list(*row) for row in zip(said, scores, strict=True)])

    hold(given, loss, **metrics)


# LiPO


def weights(s: list[float], psi: list[float]) -> list[list[float]]:
    place = {index: 1 + position for position, index in enumerate(ordered(s))}
    n = range(len(s))
    return [
        [abs(2 ** psi[i] - 2 ** psi[j]) * abs(1 / math.log(1 + place[i]) - 1 / math.log(1 + place[j])) for j in n]
        for i in n
    ]


def lipo(scores: Rows, beta: float, scale: str | None = None, psi: Rows | None = None) -> None:
    given = case("lipo_lambda", {"beta": beta, **({} if scale is None else {"label_scale": scale})}, scores)
    psi = psi or scores
    lists = ratios(given, given["policy"])
    frozen = {id(row): weights(s, labels) for row, s, labels in zip(scores, lists, psi, strict=True)}

    def of_list(said: list[float], row: list[float]) -> float:
        return sum(frozen[id(row)][i][j] * softplus(-beta * (said[i] - said[j])) for i, j in pairs_of(row))

    used = [frozen[id(row)][i][j] for row in scores for i, j in pairs_of(row)]
    right = [lists[n][i] > lists[n][j] for n, row in enumerate(scores) for i, j in pairs_of(row)]
    gained = []
    for s, labels in zip(lists, psi, strict=True):
        if len(set(labels)) > 1:
            dcg = [
                sum((2 ** labels[i] - 1) / math.log(2 + position) for position, i in enumerate(ordered(by)))
                for by in (s, labels)
            ]
            gained.append(dcg[0] / dcg[1])
    metrics = {
        "lambda_weight": mean(used),
        "rewards/accuracies": mean([float(one) for one in right]),
        "ndcg": mean(gained),
        "share/tied": mean([float(len(set(row)) == 1) for row in scores]),
    }
    holds(given, of_list, **metrics)


def test_lipo_is_its_equation() -> None:
    lipo(SCORES, 0.05)
    lipo(SCORES, 2.0)
    lipo(WITH_TIES, 0.5)
    raw = [[6.0, -3.0, 1.5, 0.0], [2.0, -1.0], [4.0, 4.0, 0.5, 2.0, -1.0], [1.0, 1.0, 1.0]]
    lipo(raw, 0.5, "sigmoid", [[sigmoid(score) for score in row] for row in raw])
    spans = [max(row) - min(row) or 1.0 for row in raw]
    lipo(raw, 0.5, "prompt", [[(one - min(row)) / span for one in row] for row, span in zip(raw, spans, strict=True)])


def test_lipo_with_two_candidates_is_a_constant_times_dpo() -> None:
    given = case("lipo_lambda", {"beta": 0.3}, [[1.0, 0.0]] * 3)
    rows = ratios(given, given["policy"])
    dpo = mean([softplus(-0.3 * (a - b)) for a, b in rows])
    assert run_case(given)["loss"] == pytest.approx((1 / math.log(2) - 1 / math.log(3)) * dpo)


def listed(scores: list[float | None], row: int = 0) -> Group:
    return Group([1], [Completion([2 + k, 9], score=score) for k, score in enumerate(scores)], row=row)


def say(
    groups: list[Group], logratios: list[float], dtype: torch.dtype = torch.float64
) -> tuple[Batch, Scores, Scores]:
    """A batch whose completions have the given log-ratios."""
    batch = Batch.of(groups, dtype=dtype)
    logps = torch.zeros(batch.mask.shape, dtype=dtype)
    logps[:, 0] = torch.tensor(logratios, dtype=dtype)
    return batch, Scores(logps.requires_grad_(), batch.mask), Scores(torch.zeros_like(logps), batch.mask)


def slopes(name: str, groups: list[Group], logratios: list[float], **settings: Any) -> list[float]:
    """d loss / d S of every completion."""
    algorithm = method(name, **settings)
    batch, policy, reference = say(algorithm.collate(groups), logratios)
    value, _ = reduce(algorithm.loss(batch, policy, reference), batch, counts(batch))
    value.backward()
    return policy.logps.grad[:, 0].tolist()


def test_lipo_raises_the_better_ones_as_the_minus_sign_of_the_paper_would_not() -> None:
    found = slopes("lipo", [listed([0.1, 0.9, 0.5])], [0.2, -0.3, 0.1])
    assert found[1] < 0 < found[0]


def test_the_ranks_of_lipo_are_those_of_the_model_not_of_the_labels() -> None:
    losses: list[float] = []
    for order in ([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]):
        algorithm = method("lipo", beta=1e-9)  # all pairs cost ln 2, so only the weights differ
        losses += algorithm.loss(*say([listed([1.0, 0.5, 0.0])], order)).terms[0].values.tolist()
    for s, found in zip(([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]), losses, strict=True):
        w = weights(s, [1.0, 0.5, 0.0])
        assert found == pytest.approx(math.log(2) * (w[0][1] + w[0][2] + w[1][2]), abs=1e-6)
    assert losses[0] != pytest.approx(losses[1])


def test_ties_of_the_model_do_not_follow_data_that_come_best_first() -> None:
    """At the first step all are ties. In the order of the data the best would always be taken for the first."""
    algorithm: Any = method("lipo")
    first = []
    for row in range(300):
        batch, _, _ = say([listed([1.0, 0.6, 0.3, 0.0], row)], [0.0] * 4)
        places = algorithm._places(batch, torch.zeros(1, 4))
        assert sorted(places[0].tolist()) == [1, 2, 3, 4]
        first.append(places[0].tolist().index(1))
    assert all(40 < first.count(index) < 115 for index in range(4))
    batch, _, _ = say([listed([1.0, 0.6, 0.3, 0.0], 7)], [0.0] * 4)
    assert method("lipo", ties="index")._places(batch, torch.zeros(1, 4)).tolist() == [[1, 2, 3, 4]]  # type: ignore[attr-defined]


def test_the_order_of_ties_is_that_of_a_row_whatever_it_is_batched_with() -> None:
    algorithm: Any = method("lipo")
    short, long = listed([0.9, 0.1, 0.4], 11), listed([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 12)
    alone = algorithm._places(Batch.of([short]), torch.zeros(1, 3))
    together = algorithm._places(Batch.of([long, short]), torch.zeros(2, 6))
    assert together[1].tolist() == [*alone[0].tolist(), 4, 5, 6]


def test_scores_that_would_explode_are_refused_unless_they_are_scaled() -> None:
    groups = [listed([0.5, 30.0], 4)]
    with pytest.raises(DataError, match=r"row 4: .* 2\^30; .* --label_scale sigmoid"):
        method("lipo").collate(groups)
    assert method("lipo", label_scale="sigmoid").collate(groups) == groups
    assert method("lipo", label_scale="prompt").collate(groups) == groups


# The others on log-ratios


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
    algorithm = method("dpo_pl", beta=0.7)
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
    algorithm = method("exo_list", beta_pi=0.5, beta_r=0.25)
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


# Without a reference


@pytest.mark.parametrize("length", ["response", "padded"])
@pytest.mark.parametrize("sft", ["sum", "mean", "padded"])
@pytest.mark.parametrize(("rank_weight", "penalty"), [(1.0, 1.0), (100.0, 0.5)])
def test_rrhf_is_its_equation(length: str, sft: str, rank_weight: float, penalty: float) -> None:
    hyper = {"length": length, "sft": sft, "rank_weight": rank_weight, "length_penalty": penalty}
    for scores, padded in ((SCORES, [9, 8, 11, 7]), (WITH_TIES, None)):
        given = case("rrhf", hyper, scores, **({} if padded is None else {"padded_length": padded}))
        # One token of prompt before the longest completion.
        total = padded or [1 + max(map(len, row)) for row in given["policy"]["completions"]]

        def loss(policy: dict[str, Any], scores: Rows = scores, total: list[int] = total) -> float:
            found = []
            for row, labels, whole in zip(policy["completions"], scores, total, strict=True):
                if len(set(labels)) == 1:
                    found.append(0.0)
                    continue
                p = [sum(one) / (whole if length == "padded" else len(one)) ** penalty for one in row]
                ranking = sum(max(0.0, p[j] - p[i]) for i, j in pairs_of(labels))
                best = row[ordered(labels)[0]]
                nll = -sum(best) / {"sum": 1, "mean": len(best), "padded": whole}[sft]
                found.append(rank_weight * ranking + nll)
            return mean(found)

        hold(given, loss)


def test_rrhf_divides_by_the_response_unless_the_authors_padded_length_is_asked_for() -> None:
    """The official code overwrites its labels in place and so divides by prompt, response and padding."""
    groups = [Group([1] * 5, [Completion([2, 9], score=0.0), Completion([3, 4, 5, 9], score=1.0)])]
    batch = Batch.of(groups, dtype=torch.float64)
    logps = torch.where(batch.mask, -1.0, 0.0).double()
    logps[0] *= 0.5
    ours = method("rrhf").loss(batch, Scores(logps, batch.mask), None)
    assert ours.terms[0].values.tolist() == pytest.approx([-0.5 + 1.0])
    theirs = method("rrhf", length="padded", sft="padded").loss(batch, Scores(logps, batch.mask), None)
    assert theirs.terms[0].values.tolist() == pytest.approx([-1.0 / 9 + 4.0 / 9])
    assert theirs.terms[1].values.tolist() == pytest.approx([4.0 / 9])
    given = replace(batch, group_columns={"padded_length": torch.tensor([16.0], dtype=torch.float64)})
    told = method("rrhf", length="padded").loss(given, Scores(logps, batch.mask), None)
    assert told.terms[0].values.tolist() == pytest.approx([-1.0 / 16 + 4.0 / 16])


def pro(p: list[float], scores: list[float]) -> float:
    total = 0.0
    for k in range(len(p)):
        below = [i for i in range(len(p)) if scores[i] < scores[k]]
        if below:
            own = p[k] * max(scores[k] - scores[i] for i in below)
            total += math.log(math.exp(own) + sum(math.exp(p[i] * (scores[k] - scores[i])) for i in below)) - own
    return total


@pytest.mark.parametrize("sft_weight", [0.0, 0.05, 2.0])
def test_pro_is_its_equation(sft_weight: float) -> None:
    for scores in ([[1.8, 0.9, 0.4, -0.7], [0.5, 0.1, -1.2], [0.3], [-2.0, 4.0]], SCORES, WITH_TIES):
        given = case("pro", {"sft_weight": sft_weight}, scores)

        def loss(policy: dict[str, Any], scores: Rows = scores) -> float:
            found = []
            for row, p, labels in zip(policy["completions"], means(policy["completions"]), scores, strict=True):
                best = sum(row[ordered(labels)[0]]) if len(set(labels)) > 1 else 0.0
                found.append(pro(p, labels) - sft_weight * (len(row) - 1) ** 2 * best)
            return mean(found)

        hold(given, loss)


def test_equal_scores_leave_no_constant_in_pro() -> None:
    """In the official code an equal score has the exponent 0: e^0 in a sum that should not know of it."""
    p = [-0.4, -0.9, -1.3]
    algorithm = method("pro", sft_weight=0.0)
    batch = Batch.of([listed([1.0, 1.0, 0.0])], dtype=torch.float64)
    logps = torch.tensor([[one, one] for one in p], dtype=torch.float64)
    found = algorithm.loss(batch, Scores(logps, batch.mask), None).terms[0].values.item()
    assert found == pytest.approx(softplus(p[2] - p[0]) + softplus(p[2] - p[1]))


# D2O


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
    algorithm = method("d2o", beta=1.0, alpha=1.0)
    found = algorithm.loss(*say(algorithm.collate(groups), [3.0, -2.0, 0.5])).terms[0].values.item()
    assert found == pytest.approx(softplus(-(0.5 - 0.5)))
    assert found < mean([softplus(-2.5), softplus(2.5)])


def test_the_worst_of_a_list_is_the_negative_one() -> None:
    groups = [listed([0.5, 0.1, 0.9]), listed([0.0, 1.0])]
    made = method("d2o").collate(groups)
    assert [[one.role for one in group.completions] for group in made] == [
        ["generated", "negative", "generated"],
        ["negative", "generated"],
    ]
    assert all(one.role == "completion" for group in groups for one in group.completions)
    assert slopes("d2o", groups, [0.0] * 5) == pytest.approx([-0.0125, 0.025, -0.0125, 0.025, -0.025])


def test_a_list_of_one_has_nothing_to_be_held_against() -> None:
    with pytest.raises(DataError, match=r"row 3: d2o .* sample at least one completion"):
        method("d2o").collate([listed([1.0, 0.0], 2), listed([1.0], 3)])


# All of them

RELATIVE = ("lipo", "dpo_pl", "listnet", "all_pairs", "exo_list", "info_nca", "nca_list", "d2o")
ALL = (*RELATIVE, "rrhf", "pro")
#: Of these a list of equal scores has a target of its own: that nothing is preferred.
WITH_TARGETS = ("listnet", "exo_list", "info_nca", "nca_list")


@pytest.mark.parametrize("name", RELATIVE)
def test_the_value_at_the_reference_is_known_beforehand(name: str) -> None:
    algorithm = method(name)
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
    assert method("dpo_pl").value_at_reference(batch) == pytest.approx((math.log(6) + math.log(2)) / 2)
    assert method("info_nca").value_at_reference(batch) == pytest.approx((math.log(3) + math.log(2)) / 2)
    assert method("nca_list").value_at_reference(batch) == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("name", [name for name in ALL if name not in WITH_TARGETS])
def test_a_list_without_an_order_adds_nothing_and_is_counted(name: str) -> None:
    groups = [listed([0.5, 0.5, 0.5]), listed([0.9, 0.1])]
    algorithm = method(name)
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
    algorithm = method(name, **strong)
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
        method(name).collate([listed([0.1, 0.2]), listed([1.0, score, 0.0], 8)])


@pytest.mark.parametrize("name", ALL)
def test_every_key_that_is_logged_is_explained(name: str) -> None:
    algorithm = method(name)
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
        method(name, **settings)


def test_nested_gradients_of_ragged_lists_have_the_shape_of_the_case() -> None:
    given = case("listnet", {"beta": 0.1})
    found = run_case(given)["grad"]["completions"]
    assert [[len(tokens) for tokens in row] for row in found] == [
        [len(tokens) for tokens in row] for row in given["policy"]["completions"]
    ]
    assert len(flat(found)) == len(flat(given["policy"]["completions"]))
