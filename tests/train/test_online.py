"""What samples and their scores become: pairs, labels, lists, or nothing where there is nothing to learn."""

from __future__ import annotations

import pytest

from xpo.api.groups import Completion, Group, Kind
from xpo.train.dealing import differ
from xpo.train.online import Forming


def sampled(*scores: float) -> Group:
    completions = [Completion([number], score=score) for number, score in enumerate(scores, 10)]
    return Group([1, 2], completions, row=7)


def pairs(groups: list[Group]) -> list[tuple[int, int]]:
    for group in groups:
        assert group.pairs == [(0, 1)]
        assert [one.role for one in group.completions] == ["chosen", "rejected"]
        assert (group.prompt_ids, group.row) == ([1, 2], 7)
    return [(group.completions[0].ids[0] - 10, group.completions[1].ids[0] - 10) for group in groups]


def test_best_against_worst() -> None:
    (group,) = Forming("pairs").groups(sampled(0.2, 0.9, -1.0, 0.9))
    assert pairs([group]) == [(1, 2)]  # of equally good ones the first
    assert [one.score for one in group.completions] == [0.9, -1.0]


def test_a_text_is_not_preferred_to_itself() -> None:
    group = sampled(0.2, 0.9)
    group.completions[1].ids = list(group.completions[0].ids)
    assert [differ(one) for one in Forming("pairs").groups(group)] == [False]
    assert [differ(one) for one in Forming("pairs").groups(sampled(0.2, 0.9))] == [True]


def test_all_pairs_but_ties() -> None:
    assert pairs(Forming("pairs", "all").groups(sampled(0.2, 0.9, 0.2))) == [(1, 0), (1, 2)]


def test_a_random_pair_follows_from_seed_stream_and_row() -> None:
    scored = sampled(0.1, 0.2, 0.3, 0.4)
    drawn = [pairs(Forming("pairs", "random", seed=seed).groups(scored, "train/0/1")) for seed in range(40)]
    assert drawn == [pairs(Forming("pairs", "random", seed=seed).groups(scored, "train/0/1")) for seed in range(40)]
    assert all(better > worse for ((better, worse),) in drawn)
    assert len({pair for (pair,) in drawn}) == 6
    others = [pairs(Forming("pairs", "random", seed=seed).groups(scored, "train/0/2")) for seed in range(40)]
    assert drawn != others


def test_labels_by_the_mean_of_the_prompt_or_by_a_threshold() -> None:
    groups = Forming("labels").groups(sampled(0.0, 0.2, 1.0))
    assert [[one.label for one in group.completions] for group in groups] == [[False], [False], [True]]
    groups = Forming("labels", threshold=0.1).groups(sampled(0.0, 0.2, 1.0))
    assert [group.completions[0].label for group in groups] == [False, True, True]
    groups = Forming("labels", threshold=0.1).groups(sampled(0.5, 0.5))
    assert [group.completions[0].label for group in groups] == [True, True]


def test_a_list_is_what_it_was() -> None:
    (group,) = Forming("lists").groups(sampled(0.0, 0.2))
    assert [one.score for one in group.completions] == [0.0, 0.2]


@pytest.mark.parametrize("kind", ["pairs", "labels", "lists"])
def test_samples_that_are_as_good_as_each_other_teach_nothing(kind: Kind) -> None:
    assert Forming(kind).groups(sampled(0.5, 0.5, 0.5)) == []
    assert Forming(kind).groups(sampled(0.5)) == []


@pytest.mark.parametrize("kind", ["pairs", "labels", "lists"])
def test_a_stand_in_can_always_be_had(kind: Kind) -> None:
    bare = Group([1], [Completion([3]), Completion([3])])
    made = Forming(kind).anyway(bare)
    assert [one.ids for group in made for one in group.completions] == [[3], [3]]
