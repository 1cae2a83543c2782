"""Pair methods with a reference: what they want of the data, and the functions that make it."""

from __future__ import annotations

from typing import Any

import pytest

from tests import tiny
from tests.zoo.byhand import mean, near, ragged, sigmoid
from tests.zoo.referenced import batch_of
from xpo import DataError
from xpo.testing import run_case
from xpo_zoo.pairs.hinge_norm import rso_accept


def test_sppo_asks_for_win_rates(tmp_path: Any) -> None:
    groups = list(batch_of([(1, 1)]).groups)
    assert tiny.algorithm("sppo").needs.scores
    assert tiny.algorithm("sppo").collate(groups) == groups
    groups[0].completions[0].score = 3.5
    with pytest.raises(DataError, match=r"row 0: score_chosen is 3\.5.*--hard true"):
        tiny.algorithm("sppo").collate(groups)
    groups[0].completions[0].score = None
    with pytest.raises(DataError, match="score_chosen is None"):
        tiny.algorithm("sppo").collate(groups)
    hard = tiny.algorithm("sppo", hard=True)
    assert not hard.needs.scores
    assert hard.collate(groups) == groups


def function(name: str, hyper: dict[str, Any], **data: Any) -> dict[str, Any]:
    found: dict[str, Any] = run_case({"loss": name, "kind": "function", "hyper": hyper, "data": data})["outputs"]
    return found


def test_win_rates_count_a_sample_against_itself() -> None:
    found = function("sppo_win_rates", {}, scores=[[1.0, -1.0, 0.0], [0.0, 0.0, 2000.0]])
    expected = [mean([sigmoid(a - b) for b in (1.0, -1.0, 0.0)]) for a in (1.0, -1.0, 0.0)]
    assert found["win_rate"][0] == pytest.approx(expected)
    assert mean(found["win_rate"][0]) == pytest.approx(0.5)
    assert found["matrix"][1][2] == pytest.approx([1.0, 1.0, 0.5])
    assert found["chosen_rejected"] == [[0, 1], [2, 0]]


def test_rejection_sampling_takes_the_best_in_every_sweep() -> None:
    rewards = [0.0, 1.0, 0.5]
    assert rso_accept(rewards, [0.99] * 9, beta=0.1, num=3) == {"accepted": [1, 2, 0]}
    assert rso_accept(rewards, [0.0] * 9, beta=0.1, num=2) == {"accepted": [0, 1]}
    assert rso_accept(rewards, [0.99] * 9, beta=0.1, num=9) == {"accepted": [1, 2, 0]}  # no more than there are
    # The best is that of the sweep's beginning: after 1 is taken, 2 is still measured against it.
    assert rso_accept(rewards, [0.9, 0.9, 0.9, 0.9, 0.9], beta=0.5, num=2) == {"accepted": [1, 2]}


def test_token_credits_add_up_to_the_reward() -> None:
    logps, ref = ragged(3, 4), near(ragged(3, 4), 5)
    found = function("token_credit", {"beta": 0.3}, logps=logps, ref_logps=ref)
    for credit, reward, own, theirs in zip(found["credit"], found["sequence_reward"], logps, ref, strict=True):
        assert credit == pytest.approx([0.3 * (a - b) for a, b in zip(own, theirs, strict=True)])
        assert reward == pytest.approx(0.3 * (sum(own) - sum(theirs)))
