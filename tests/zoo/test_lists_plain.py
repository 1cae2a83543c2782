"""Methods of lists without a reference, RRHF and PRO: their equations in plain Python."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import hold, mean, softplus
from tests.zoo.ranked import SCORES, WITH_TIES, Rows, case, listed, means, ordered, pairs_of
from xpo import Batch, Completion, Group, Scores


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
    ours = tiny.algorithm("rrhf").loss(batch, Scores(logps, batch.mask), None)
    assert ours.terms[0].values.tolist() == pytest.approx([-0.5 + 1.0])
    theirs = tiny.algorithm("rrhf", length="padded", sft="padded").loss(batch, Scores(logps, batch.mask), None)
    assert theirs.terms[0].values.tolist() == pytest.approx([-1.0 / 9 + 4.0 / 9])
    assert theirs.terms[1].values.tolist() == pytest.approx([4.0 / 9])
    given = replace(batch, group_columns={"padded_length": torch.tensor([16.0], dtype=torch.float64)})
    told = tiny.algorithm("rrhf", length="padded").loss(given, Scores(logps, batch.mask), None)
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
    algorithm = tiny.algorithm("pro", sft_weight=0.0)
    batch = Batch.of([listed([1.0, 1.0, 0.0])], dtype=torch.float64)
    logps = torch.tensor([[one, one] for one in p], dtype=torch.float64)
    found = algorithm.loss(batch, Scores(logps, batch.mask), None).terms[0].values.item()
    assert found == pytest.approx(softplus(p[2] - p[0]) + softplus(p[2] - p[1]))
