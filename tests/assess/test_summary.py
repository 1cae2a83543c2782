"""The table by itself: means, marks, and what a bar and a batch are."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests import tiny
from xpo.assess.batches import by_tokens
from xpo.assess.columns import columns_of, marks_of
from xpo.assess.items import Item, Items
from xpo.assess.opinions import Asked, Opinion, value_of
from xpo.assess.position import check_position
from xpo.assess.sections import Section
from xpo.assess.summary import summarise, values_of
from xpo.assess.table import agreement, markdown
from xpo.data.rows import Answer, Row
from xpo.train.bar import Bar

SIZES = {"a": 6, "b": 30, "c": 2}


def items() -> Items:
    """Pairs of three subsets."""
    made: list[Item] = []
    for subset, size in SIZES.items():
        for _ in range(size):
            row = Row("w1", [Answer("w2"), Answer("w3")], [(0, 1)], len(made), f"row {len(made)}")
            made.append(Item(len(made), (len(made),), subset, row))
    return Items(made, "pairs", {}, [], "subset")


def opinion(name: str, right: dict[str, int]) -> Opinion:
    """One that is right on the first so many of each subset."""
    scores: dict[int, list[float]] = {}
    start = 0
    for subset, size in SIZES.items():
        for place in range(size):
            scores[start + place] = [1.0, 0.0] if place < right[subset] else [0.0, 1.0]
        start += size
    return Opinion(name, "by hand", scores=scores)


def test_means_by_hand() -> None:
    one = opinion("one", {"a": 3, "b": 24, "c": 2})
    columns = {column.key: column for column in columns_of(list(SIZES), [Section("S", (("a", "b"), ("c",)))])}
    values = values_of(one, items())
    expected = {
        "mean_over_all": 29 / 38,
        "mean_of_subsets": (0.5 + 0.8 + 1.0) / 3,
        "section/S": (27 / 36 + 1.0) / 2,
        "mean_of_sections": (27 / 36 + 1.0) / 2,
        "subset/a": 0.5,
        "subset/b": 0.8,
        "subset/c": 1.0,
    }
    assert {key: column.estimate(values).value for key, column in columns.items()} == pytest.approx(expected)
    for column in columns.values():
        found = column.estimate(values)
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_marks() -> None:
    some = {
        "best": opinion("best", {"a": 6, "b": 28, "c": 2}),
        "near": opinion("near", {"a": 6, "b": 27, "c": 2}),
        "far": opinion("far", {"a": 2, "b": 9, "c": 0}),
    }
    values = {name: values_of(one, items()) for name, one in some.items()}
    for column in columns_of(list(SIZES), [])[:2]:
        assert marks_of(column, values) == {"best": "best", "near": "equal"}
    assert marks_of(columns_of(list(SIZES), [])[0], {"best": values["best"]}) == {}  # best of what?


def test_many_subsets_are_lines_on_a_terminal() -> None:
    lengths = {item.number: [1, 1] for item in items().items}
    summary = summarise([opinion("one", {"a": 3, "b": 24, "c": 2})], items(), lengths, "words", [])
    [rows] = agreement(summary, wide=False)
    assert [text for text, _ in rows[0]] == [
        *("scorer", "all (n 38)", "mean of subsets", "a (n 6)", "b (n 30)", "c (n 2)", "ties"),
    ]
    text = markdown(summary, ["Data: mine."])
    assert "| one | 76.3 [60.8, 87.0] | 76.7 [" in text
    assert text.count("| longer wins |") == 2


def test_a_tie_in_one_order_is_no_flip() -> None:
    check = check_position([Asked(0.5, 0.9, -0.2), Asked(0.9, 0.1, 0.4), Asked(None, 0.9, None), Asked(0.8, 0.7, 0.5)])
    assert (check.questions, check.flips.value) == (3, pytest.approx(1 / 3))
    assert check.first.value == pytest.approx((0.25 + 1.0 + 0.5) / 3)
    assert (check.better_first.value, check.better_second.value) == pytest.approx((2.5 / 3, 2 / 3))


def test_an_item_counts_the_preferences_there_is_an_opinion_on() -> None:
    assert value_of([1.0, None, 0.0, -2.0]) == 0.5
    assert value_of([None]) is None


@pytest.mark.parametrize("budget", [1, 40, 100, 10_000])
def test_batches_hold_every_group_once_and_no_more_tokens_than_allowed(budget: int) -> None:
    groups = tiny.groups("lists", 37)
    batches = list(by_tokens(groups, budget))
    assert sorted(place for batch in batches for place in batch) == list(range(37))
    for batch in batches:
        rows = sum(len(groups[place].completions) for place in batch)
        assert len(batch) == 1 or rows * max(groups[place].length for place in batch) <= budget
    assert groups[batches[0][0]].length == max(group.length for group in groups)


def test_progress_is_lines_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    with Bar("scoring x", 4, Console(file=out), every=0.0) as bar:
        bar.step()
        bar.step(3)
    assert out.getvalue() == "scoring x  1/4\nscoring x  4/4\n"
    out = io.StringIO()
    with Bar("scoring x", 4, Console(file=out, force_terminal=True, width=100)) as bar:
        bar.step(4)
    assert "4/4" in out.getvalue()
