"""What is remarked of the rows of a run's data."""

from __future__ import annotations

import pytest

from tests import tiny
from tests.train.madeup_runs import notes
from xpo import Completion, Group
from xpo.train.survey import REMARKS, remarks, survey


def many(count: int = 60, seed: int = 0) -> list[Group]:
    return tiny.groups("pairs", count, seed)


def test_healthy_rows_have_nothing_to_remark() -> None:
    found = survey(many(), "pairs")
    assert found["duplicates"] == found["contradicted"] == found["unfinished"] == found["identical"] == 0.0
    assert list(remarks(found)) == []
    assert survey(many()[:10] * 2, "pairs") == {}
    assert survey([Group([1])] * 100, "rollouts") == {}


def test_repeats_and_contradictions() -> None:
    groups = many()
    turned = [Group(g.prompt_ids, g.completions, [(1, 0)]) for g in groups[:6]]
    assert survey([*groups, *turned], "pairs")["contradicted"] == pytest.approx(12 / 66)
    assert survey([*groups, *groups[:6]], "pairs")["duplicates"] == pytest.approx(6 / 66)
    labels = [
        Group(g.prompt_ids, [Completion(g.completions[0].ids, label=label)]) for g in groups for label in (True, False)
    ]
    assert survey(labels, "labels")["contradicted"] == 1.0
    assert survey(labels, "labels")["duplicates"] == 0.0


def test_labels_of_one_side_are_told_of_with_the_weight_that_would_balance_them() -> None:
    groups = [Group([n], [Completion([n, 2], label=n % 6 == 0)]) for n in range(60)]
    found = survey(groups, "labels")
    assert found["desirable"] == pytest.approx(1 / 6)
    weights = {"desirable_weight": 1.0, "undesirable_weight": 1.0}
    [note] = notes("kto", [], data={"survey": found}, algorithm_settings=weights)
    assert "17% of the labels are desirable" in note
    assert "--desirable_weight to about 5" in note
    assert notes("kto", [], data={"survey": found}, algorithm_settings={**weights, "desirable_weight": 5.0}) == []
    [note] = notes("kto", [], data={"survey": {"desirable": 0.9}}, algorithm_settings=weights)
    assert "--undesirable_weight to about 9" in note
    assert notes("kto", [], data={"survey": {"desirable": 0.44}}, algorithm_settings=weights) == []


@pytest.mark.parametrize(("label", "said"), [(True, "All labels are desirable"), (False, "All labels are undesirable")])
def test_labels_of_one_sort_alone_are_told_of(label: bool, said: str) -> None:
    found = survey([Group([n], [Completion([n, 2], label=label)]) for n in range(60)], "labels")
    [note] = notes("kto", [], data={"survey": found})
    assert note.startswith(said)


def test_ties_and_equal_completions() -> None:
    groups = [
        Group([n], [Completion([5, n], score=1.0), Completion([5, n + n % 2], score=1.0 + (n % 4 == 0))])
        for n in range(1, 61)
    ]
    found = survey(groups, "lists")
    assert found["tied"] == pytest.approx(0.75)
    assert found["identical"] == pytest.approx(0.25)


def test_what_a_row_brings_along_may_equal_its_chosen_completion() -> None:
    groups = many()
    for group in groups:
        group.completions.append(Completion(group.completions[0].ids, "gold"))
    assert survey(groups, "pairs")["identical"] == 0.0


def test_completions_that_were_cut() -> None:
    groups = many()
    for number, group in enumerate(groups):
        group.completions[0].finished = number % 4 != 0
        group.completions[1].ids = [7] * (100 if number % 3 == 0 else 80 + number % 3)
    found = survey(groups, "pairs")
    assert found["unfinished"] == pytest.approx(1 / 8)
    assert found["at_limit"] == pytest.approx(1 / 6)
    assert any("17% of the completions have exactly the 100 tokens" in remark for remark in remarks(found))


def test_lengths_of_the_preferred() -> None:
    groups = [
        Group([n], [Completion([1] * 30, "chosen"), Completion([2] * 10, "rejected")], [(0, 1)]) for n in range(60)
    ]
    found = survey(groups, "pairs")
    [note] = notes("dpo", [], data={"survey": found})
    assert "preferred completions have 30 tokens and the others 10" in note
    labels = [Group([n], [Completion([1] * (30 if n % 2 else 10), label=n % 2 == 1)]) for n in range(60)]
    lists = [Group([n], [Completion([1] * k, score=float(k)) for k in (20, 10, 30)]) for n in range(60)]
    for some, kind in ((labels, "labels"), (lists, "lists")):
        sides = survey(some, kind)  # type: ignore[arg-type]  # a kind of data
        assert (sides["length/chosen"], sides["length/rejected"]) == (30, 10)


@pytest.mark.parametrize("name", REMARKS)
def test_every_remark_can_be_made(name: str) -> None:
    [note] = notes("dpo", [], data={"survey": {name: 0.9, "longest": 512.0}})
    assert note.startswith("Data: 90% of the ")
