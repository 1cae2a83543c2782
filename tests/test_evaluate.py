"""What counts as a known preference, how agreement is counted, and what the table at the end says."""

from __future__ import annotations

import math

import pytest

from xpo.api.groups import Completion, Group
from xpo.evaluate import KL, Examiner, View, accuracy, known_preferences
from xpo.feedback.sampling import Sampling


def completions(*scores: float | None) -> list[Completion]:
    return [Completion([1] * (index + 1), score=score) for index, score in enumerate(scores)]


def test_pairs_are_preferences_at_their_places() -> None:
    groups = [
        Group([1], completions(None, None), pairs=[(0, 1)]),
        Group([1], completions(None, None, None), pairs=[(2, 0), (2, 1)]),
    ]
    assert known_preferences(groups) == [(0, 1), (4, 2), (4, 3)]


def test_scores_order_a_list_and_ties_say_nothing() -> None:
    assert known_preferences([Group([1], completions(0.5, 0.1, 0.5))]) == [(0, 1), (2, 1)]


def test_labels_compare_completions_of_different_prompts() -> None:
    groups = [Group([1], [Completion([1], label=label)]) for label in (True, False, True)]
    assert known_preferences(groups) == [(0, 1), (2, 1)]


def test_a_tie_agrees_by_half() -> None:
    assert accuracy([2.0, 1.0, 1.0], [(0, 1), (1, 2), (2, 0)]) == pytest.approx(0.5)


class Words:
    """A tokenizer as far as an examiner needs one."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, ids))


def view(logps: list[float], rewards: list[float], length: int = 2) -> View:
    groups = [Group([1], [Completion([5] * length)], source={"prompt": "p"}) for _ in rewards]
    return View(logps, groups, ["text"] * len(rewards), rewards)


def examiner(compared: list[Group]) -> Examiner:
    return Examiner(Words(), compared, [], [], Sampling(1, 4))  # type: ignore[arg-type]  # decodes, and no more


def test_the_table_counts_wins_ties_and_gains() -> None:
    compared = [Group([1], completions(None, None), pairs=[(0, 1)])]
    before, after = view([-3.0, -2.0], [0.0, 0.0, 0.0, 0.0]), view([-2.5, -2.5], [1.0, 1.0, 0.0, -1.0], length=3)
    rows = {row.name: row for row in examiner(compared).compare(before, after, None, None)}
    assert rows["preference accuracy (implicit reward)"].after == 1.0
    # Per token, -3/1 against -2/2 is the wrong way round; so is -2.5/1 against -2.5/2.
    assert rows["preference accuracy (log-prob per token)"].before == 0.0
    assert rows["win rate against the start"].after == pytest.approx((2 + 0.5) / 4)
    assert rows["mean reward"].after == pytest.approx(0.25)
    assert (rows["mean length"].before, rows["mean length"].after) == (2.0, 3.0)
    assert KL not in rows  # nothing to measure it against


def test_without_held_out_preferences_the_table_says_how_to_get_some() -> None:
    [row] = examiner([]).compare(view([], []), view([], []), None, None)
    assert row.after is None
    assert "--eval_size" in row.note
    assert not math.isfinite(row.before or math.nan)
