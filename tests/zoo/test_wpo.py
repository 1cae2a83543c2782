"""WPO: weights without gradient, at most 1, whatever the length."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import hold, mean, softplus
from tests.zoo.whole import DATA, VOCABULARY, log_softmax, logps, policy, ratios, sides
from xpo import Scores
from xpo.api.vocabulary import Distributions
from xpo.testing import run_case
from xpo_zoo.pairs.wpo import log_weights


def log_weight(alignment: str, rows: list[list[float]], ids: list[int]) -> float:
    def baseline(row: list[float]) -> float:
        own = log_softmax(row)
        if alignment == "sampled":
            return math.log(sum(math.exp(value) ** 2 for value in own))
        return max(own) if alignment == "greedy" else 0.0

    return mean([value - baseline(row) for value, row in zip(logps(rows, ids), rows, strict=True)])


@pytest.mark.parametrize("alignment", ["sampled", "greedy", "none"])
@pytest.mark.parametrize("clamp", [True, False])
def test_wpo_weighs_dpo_by_averages_and_without_gradient(alignment: str, clamp: bool) -> None:
    found = sides(policy(), lambda rows, ref_rows, ids: log_weight(alignment, rows, ids))
    weights = [math.exp(chosen + rejected) for chosen, rejected in found]
    weights = [min(1.0, weight) for weight in weights] if clamp else weights

    def loss(found: dict[str, Any]) -> float:
        both = zip(weights, ratios(found), strict=True)
        return mean([weight * softplus(-0.2 * (chosen - rejected)) for weight, (chosen, rejected) in both])

    hyper = {"alignment": alignment, "beta": 0.2, "clamp": clamp}
    hold({"loss": "wpo", "hyper": hyper, "policy": policy(), "data": DATA}, loss, weights=mean(weights))


def test_the_weight_of_wpo_is_clamped_at_1() -> None:
    """On a flat distribution with one peak, that peak is likelier than what one samples: the weight exceeds 1."""
    peak = [2.0, 0.0, 0.0, 0.0]
    ids = [[0, 0]]
    one = {"chosen_logits": [[peak, peak]], "rejected_logits": [[peak, peak]]}
    data = {
        "chosen_ids": ids,
        "rejected_ids": ids,
        "ref_chosen_logits": [[peak] * 2],
        "ref_rejected_logits": [[peak] * 2],
    }
    case = {"loss": "wpo", "kind": "loss", "policy": one, "data": data}
    clamped, free = (run_case({**case, "hyper": {"clamp": clamp}})["metrics"]["weights"] for clamp in (True, False))
    assert clamped == 1.0 < free
    assert free == pytest.approx(math.exp(2 * log_weight("sampled", [peak], [0])))


def test_the_weight_of_wpo_does_not_vanish_with_length() -> None:
    """With sums in the place of means the weight of an ordinary completion is some 5e-40."""
    length = 200
    lines = torch.randn(length, VOCABULARY, generator=torch.Generator().manual_seed(0))
    ids = torch.distributions.Categorical(logits=lines).sample()
    own = lines.log_softmax(-1).gather(1, ids[:, None])[:, 0][None]
    mask = torch.ones(1, length, dtype=torch.bool)
    found = log_weights(Scores(own, mask, Distributions(lines, lambda states: states)))
    assert -1.0 < float(found) < 0.5


def test_wpo_reads_distributions_only_where_its_alignment_does() -> None:
    assert tiny.algorithm("wpo").needs.vocabulary
    assert tiny.algorithm("wpo", alignment="greedy").needs.vocabulary
    assert not tiny.algorithm("wpo", alignment="none").needs.vocabulary
    assert tiny.algorithm("wpo", alignment="none").needs.reference
