"""LiPO: its equation, its ranks and their ties, and the sign that others got wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import mean, sigmoid, softplus
from tests.zoo.ranked import (
    SCORES,
    WITH_TIES,
    Rows,
    case,
    holds,
    listed,
    ordered,
    pairs_of,
    ratios,
    say,
    slopes,
)
from xpo import Batch, DataError
from xpo.testing import run_case


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


def test_lipo_raises_the_better_ones_as_the_minus_sign_of_the_paper_would_not() -> None:
    found = slopes("lipo", [listed([0.1, 0.9, 0.5])], [0.2, -0.3, 0.1])
    assert found[1] < 0 < found[0]


def test_the_ranks_of_lipo_are_those_of_the_model_not_of_the_labels() -> None:
    losses: list[float] = []
    for order in ([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]):
        algorithm = tiny.algorithm("lipo", beta=1e-9)  # all pairs cost ln 2, so only the weights differ
        losses += algorithm.loss(*say([listed([1.0, 0.5, 0.0])], order)).terms[0].values.tolist()
    for s, found in zip(([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]), losses, strict=True):
        w = weights(s, [1.0, 0.5, 0.0])
        assert found == pytest.approx(math.log(2) * (w[0][1] + w[0][2] + w[1][2]), abs=1e-6)
    assert losses[0] != pytest.approx(losses[1])


def test_ties_of_the_model_do_not_follow_data_that_come_best_first() -> None:
    """At the first step all are ties. In the order of the data the best would always be taken for the first."""
    algorithm: Any = tiny.algorithm("lipo")
    first = []
    for row in range(300):
        batch, _, _ = say([listed([1.0, 0.6, 0.3, 0.0], row)], [0.0] * 4)
        places = algorithm._places(batch, torch.zeros(1, 4))
        assert sorted(places[0].tolist()) == [1, 2, 3, 4]
        first.append(places[0].tolist().index(1))
    assert all(40 < first.count(index) < 115 for index in range(4))
    batch, _, _ = say([listed([1.0, 0.6, 0.3, 0.0], 7)], [0.0] * 4)
    assert tiny.algorithm("lipo", ties="index")._places(batch, torch.zeros(1, 4)).tolist() == [[1, 2, 3, 4]]


def test_the_order_of_ties_is_that_of_a_row_whatever_it_is_batched_with() -> None:
    algorithm: Any = tiny.algorithm("lipo")
    short, long = listed([0.9, 0.1, 0.4], 11), listed([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 12)
    alone = algorithm._places(Batch.of([short]), torch.zeros(1, 3))
    together = algorithm._places(Batch.of([long, short]), torch.zeros(2, 6))
    assert together[1].tolist() == [*alone[0].tolist(), 4, 5, 6]


def test_scores_that_would_explode_are_refused_unless_they_are_scaled() -> None:
    groups = [listed([0.5, 30.0], 4)]
    with pytest.raises(DataError, match=r"row 4: .* 2\^30; .* --label_scale sigmoid"):
        tiny.algorithm("lipo").collate(groups)
    assert tiny.algorithm("lipo", label_scale="sigmoid").collate(groups) == groups
    assert tiny.algorithm("lipo", label_scale="prompt").collate(groups) == groups
