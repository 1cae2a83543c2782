"""Scores of samples: rewards as they are, or as probabilities of being preferred, and what a missing end costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from tests import tiny
from xpo.api.groups import Completion, Group
from xpo.feedback.judges import Judge, Question
from xpo.feedback.rewards import Reward
from xpo.feedback.verdicts import Feedback


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def samples(*ends: bool) -> list[Completion]:
    return [Completion([number + 3, number + 4], finished=end) for number, end in enumerate(ends)]


def rewarded(values: Sequence[float], **more: Any) -> Feedback:
    return Feedback(tiny.tokenizer(), [Reward("given", lambda **_: list(values))], **more)


class Preset(Judge):
    """Knows the answer to every question, by what the two completions begin with."""

    def __init__(self, answers: dict[tuple[int, int], float | None]) -> None:
        self.answers = answers
        self.asked: list[tuple[int, int]] = []

    def compare(self, questions: Sequence[Question]) -> list[float | None]:
        pairs = [(one.first.ids[0] - 3, one.second.ids[0] - 3) for one in questions]
        self.asked += pairs
        return [self.answers[pair] for pair in pairs]


def test_rewards_stay_rewards() -> None:
    (found,) = rewarded([1.0, 2.0]).verdicts([Group([1])], [samples(True, True)])
    assert (found.samples, found.opponents) == ([1.0, 2.0], [])


@pytest.mark.parametrize(
    ("more", "expected"),
    [({"missing_eos_penalty": 0.5}, [1.0, 1.5]), ({"missing_eos_score": -1.0}, [1.0, -1.0])],
)
def test_a_missing_end_costs_or_decides(more: dict[str, float], expected: list[float]) -> None:
    (found,) = rewarded([1.0, 2.0], **more).verdicts([Group([1])], [samples(True, False)])
    assert found.samples == expected


def test_wins_of_rewards_are_means_of_sigmoids_of_differences() -> None:
    rewards = [0.3, -1.0, 2.0]
    others = rewarded(rewards, wins="others").verdicts([Group([1])], [samples(True, True, True)])[0].samples
    everyone = rewarded(rewards, wins="all").verdicts([Group([1])], [samples(True, True, True)])[0].samples
    for own in range(3):
        beaten = [sigmoid(rewards[own] - rewards[other]) for other in range(3) if other != own]
        assert others[own] == pytest.approx(sum(beaten) / 2)
        assert everyone[own] == pytest.approx((sum(beaten) + 0.5) / 3)


def test_against_an_opponent_only_the_opponent_counts() -> None:
    (found,) = rewarded([0.3, -1.0, 2.0], wins="others").verdicts([Group([1])], [samples(True, True)], [samples(True)])
    assert found.samples == [pytest.approx(sigmoid(-1.7)), pytest.approx(sigmoid(-3.0))]
    assert found.opponents == [pytest.approx((sigmoid(1.7) + sigmoid(3.0)) / 2)]


def test_a_judge_is_asked_about_each_pair_once() -> None:
    judge = Preset({(0, 1): 0.8, (0, 2): 0.4, (1, 2): 1.0})
    (found,) = Feedback(tiny.tokenizer(), judge=judge).verdicts([Group([1])], [samples(True, True, True)])
    assert judge.asked == [(0, 1), (0, 2), (1, 2)]
    assert found.samples == pytest.approx([0.6, (0.2 + 1.0) / 2, (0.6 + 0.0) / 2])


def test_a_judge_is_not_asked_to_compare_samples_where_there_is_an_opponent() -> None:
    judge = Preset({(0, 2): 0.9, (1, 2): 0.3})
    two, other = samples(True, True), [Completion([5, 6])]
    (found,) = Feedback(tiny.tokenizer(), judge=judge, wins="others").verdicts([Group([1])], [two], [other])
    assert sorted(judge.asked) == [(0, 2), (1, 2)]
    assert found.samples == pytest.approx([0.9, 0.3])
    assert found.opponents == pytest.approx([(0.1 + 0.7) / 2])


def test_what_a_judge_fails_at_is_left_out_of_the_mean_and_nothing_else() -> None:
    judge = Preset({(0, 1): None, (0, 2): 0.4, (1, 2): None})
    (found,) = Feedback(tiny.tokenizer(), judge=judge).verdicts([Group([1])], [samples(True, True, True)])
    assert found.samples[0] == pytest.approx(0.4)
    assert found.samples[1] is None
    assert found.samples[2] == pytest.approx(0.6)


def test_a_penalty_lowers_the_odds_of_what_did_not_end() -> None:
    judge = Preset({(0, 1): 0.5})
    feedback = Feedback(tiny.tokenizer(), judge=judge, missing_eos_penalty=2.0)
    (found,) = feedback.verdicts([Group([1])], [samples(True, False)])
    assert found.samples == pytest.approx([sigmoid(2.0), sigmoid(-2.0)])
    (both,) = feedback.verdicts([Group([1])], [samples(False, False)])
    assert both.samples == pytest.approx([0.5, 0.5])
