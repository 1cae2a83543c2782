"""Rows that ride along: the same beside the same rows however a step is split, and all of them equally often."""

from __future__ import annotations

from collections import Counter

import pytest

from xpo import Completion, Group
from xpo.data.beside import Beside
from xpo.data.order import StepData, StepSampler


def rows(count: int, role: str = "completion") -> list[Group]:
    return [Group([1], [Completion([2], role)], row=number) for number in range(count)]


def seen(split: tuple[int, int], world: int = 1, epochs: int = 2) -> dict[tuple[int, int], int]:
    """(epoch, row) -> the row that rides beside it."""
    data = StepData(rows(13), list, [Beside(rows(5, "replay"), seed=3)])
    found: dict[tuple[int, int], int] = {}
    for rank in range(world):
        sampler = StepSampler(data.groups, per_device=split[0], accumulation=split[1], world=world, rank=rank, seed=0)
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            for (micro,) in sampler:
                batch = data[micro]
                if not batch.idle:
                    pairs = zip(batch.groups[::2], batch.groups[1::2], strict=True)
                    found |= {(epoch, own.row): other.row for own, other in pairs}
    return found


def test_the_split_does_not_decide_who_rides_beside_whom() -> None:
    first = seen((4, 1))
    assert len(first) == 26
    assert first == seen((1, 4)) == seen((2, 1), world=2)


def test_all_of_them_ride_equally_often() -> None:
    counts = Counter(seen((4, 1), epochs=5).values())
    assert sorted(counts) == [0, 1, 2, 3, 4]
    assert set(counts.values()) == {13}


@pytest.mark.parametrize("count", [3, 40])
def test_each_turn_has_an_order_of_its_own(count: int) -> None:
    beside = Beside(rows(count), seed=0)
    turns = [[beside.at(turn * count + place).row for place in range(count)] for turn in range(4)]
    assert all(sorted(turn) == list(range(count)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) > 1
    assert [beside.at(place).row for place in range(count)] == turns[0]  # going back finds the same


def test_collate_sees_the_step_before_what_rides_along() -> None:
    given: list[list[str]] = []

    def collate(groups: list[Group]) -> list[Group]:
        given.append([group.completions[0].role for group in groups])
        return groups

    data = StepData(rows(4), collate, [Beside(rows(9, "retain"), 0), Beside(rows(2, "replay"), 0)])
    (micro,) = next(iter(StepSampler(data.groups, per_device=2, accumulation=2, world=1, rank=0, seed=0)))
    batch = data[micro]
    assert given == [["completion"] * 4 + ["retain"] * 4 + ["replay"] * 4]
    assert [group.completions[0].role for group in batch.groups] == ["completion", "retain", "replay"] * 2
