"""DNO and SPPO on samples: how much better the better one is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import flat, hold, mean, near, ragged, sigmoid, softplus
from tests.zoo.compared import pair, sums
from xpo import Batch, DataError, Group, Scores
from xpo.testing import run_case


def pairs(seed: int = 151, count: int = 4) -> dict[str, Any]:
    chosen, rejected = ragged(seed, count), ragged(seed + 1, count)
    return {
        "policy": {"chosen": chosen, "rejected": rejected},
        "data": {"ref_chosen": near(chosen, seed + 2, 2.0), "ref_rejected": near(rejected, seed + 3, 2.0)},
    }


@pytest.mark.parametrize("eta", [0.1, 0.9])
@pytest.mark.parametrize("told", ["target", "scores"])
def test_dno(told: str, eta: float) -> None:
    case = pairs()
    better, worse, targets = [0.9, 0.2, 2.0, 0.5], [0.1, 0.7, -1.0, 0.5], [1.0, 0.3, 0.75, 0.0]
    if told == "scores":
        targets = [sigmoid(a - b) for a, b in zip(better, worse, strict=True)]
    own = {"target": targets} if told == "target" else {"score_chosen": better, "score_rejected": worse}
    refs = [sums(case["data"][key]) for key in ("ref_chosen", "ref_rejected")]

    def loss(policy: Mapping[str, Any]) -> float:
        rows = zip(sums(policy["chosen"]), sums(policy["rejected"]), *refs, targets, strict=True)
        z = [(eta * ((own - r) - (other - s)), p) for own, other, r, s, p in rows]
        return mean([p * softplus(-one) + (1 - p) * softplus(one) for one, p in z])

    case = {"loss": "dno", "hyper": {"eta": eta}, "policy": case["policy"], "data": {**case["data"], **own}}
    hold(case, loss, target=mean(targets))


def test_dno_with_certain_labels_is_dpo() -> None:
    case = pairs(161)
    found = run_case({"loss": "dno", "hyper": {"eta": 0.3}, **case, "data": {**case["data"], "target": [1.0] * 4}})
    other = run_case({"loss": "dpo", "hyper": {"beta": 0.3}, **case})
    assert found["loss"] == pytest.approx(other["loss"], abs=1e-12)
    assert flat(found["grad"]["rejected"]) == pytest.approx(flat(other["grad"]["rejected"]), abs=1e-12)


def test_a_target_goes_before_scores_and_rows_may_differ() -> None:
    groups = [pair(0.9, (0.0, 1.0)), pair(scores=(3.0, 1.0)), pair(math.nan, (1.0, 1.0)), pair(0.25)]
    method = tiny.algorithm("dno")
    batch = Batch.of(method.collate(groups), dtype=torch.float64)
    said = Scores(-1.0 * batch.mask, batch.mask)
    found = method.loss(batch, said, said)
    assert found.metrics["target"].tolist() == pytest.approx([0.9, sigmoid(2.0), 0.5, 0.25])
    assert found.terms[0].values.tolist() == pytest.approx([math.log(2)] * 4)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (pair(), "score_chosen and score_rejected .* target .* --algo dpo"),
        (pair(scores=(0.5, None)), "score_chosen and score_rejected"),
        (pair(math.nan), "score_chosen and score_rejected"),
        (pair(1.5, (0.1, 0.2)), "target is 1.5; it must be a probability"),
    ],
)
def test_a_pair_that_says_nothing_of_how_much_better_is_refused(group: Group, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tiny.algorithm("dno").collate([pair(0.5), group])


def test_sppo_takes_the_win_rates_of_sampled_pairs_and_rows_without_any() -> None:
    """Their penalty comes off the log-odds, so that they stay between 0 and 1; off the rate, they would not."""
    method = tiny.algorithm("sppo", beta=0.5)
    groups = [pair(scores=(0.9, 0.1)), pair(scores=(0.5, 0.5)), Group([1])]
    assert method.collate(groups) == groups
    batch = Batch.of(groups, dtype=torch.float64)
    said = Scores(-1.0 * batch.mask, batch.mask)
    assert method.loss(batch, said, said).terms[0].values.tolist() == pytest.approx([2 * 0.8**2, 0.0])
    with pytest.raises(DataError, match="win rates between 0 and 1"):
        method.collate([pair(scores=(0.9, -0.4))])
