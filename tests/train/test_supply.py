"""Windows, repeats and rounds of sampling, and going on in the middle of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from xpo.api.groups import Completion, Group
from xpo.data.order import MicroBatch, StepSampler
from xpo.train.supply import Step, Supply


class Source:
    """A pass after pass over 12 prompts, four steps of three each, and what was sampled when."""

    def __init__(self, *, repeat: int = 1, window: int = 1, accumulation: int = 1) -> None:
        self.sampler = StepSampler(
            [Group([1]) for _ in range(12)],
            per_device=3 // accumulation or 1,
            accumulation=accumulation,
            world=1,
            rank=0,
            seed=0,
            repeat=repeat,
            window=window,
        )
        self.accumulation = accumulation
        self.step = 0
        self.filled: list[tuple[int, list[int]]] = []
        self.rounds: list[int] = []

    def micros(self, epoch: int = 0, skip: int = 0) -> Iterator[MicroBatch]:
        self.sampler.set_epoch(epoch)
        for number, (micro,) in enumerate(self.sampler):
            if number >= skip:
                yield MicroBatch([Group([1], row=row) for row in micro.part], not micro.part, micro)

    def fill(self, steps: Sequence[Step]) -> list[Step]:
        self.filled.append((self.step, [step[0].micro.step for step in steps]))
        return [[self._sampled(micro) for micro in step] for step in steps]

    def _sampled(self, micro: MicroBatch) -> MicroBatch:
        groups = [replace(one, completions=[Completion([self.step], score=0.1 * one.row)]) for one in micro.groups]
        return replace(micro, groups=groups)

    def begin(self) -> None:
        self.rounds.append(self.step)

    def run(self, supply: Supply, steps: int, of: int | None = None, epochs: int = 1, skip: int = 0) -> list[Step]:
        taken = []
        for epoch in range(epochs):
            micros = self.micros(epoch, skip if epoch == 0 else 0)
            while self.step < steps and (found := supply.next(micros, self.accumulation, self.step, of or steps)):
                taken.append(found)
                self.step += 1
        return taken


def of(source: Source, **more: Any) -> Supply:
    return Supply(source.fill, begin=source.begin, **more)


def sampled_at(steps: Sequence[Step]) -> list[int]:
    return [step[0].groups[0].completions[0].ids[0] for step in steps]


def test_every_step_has_samples_of_its_own() -> None:
    source = Source()
    assert sampled_at(source.run(of(source), 4)) == [0, 1, 2, 3]


def test_a_window_is_sampled_for_by_the_policy_of_its_first_step() -> None:
    source = Source()
    steps = source.run(of(source, window=3), 8, epochs=2)
    assert sampled_at(steps) == [0, 0, 0, 3, 4, 4, 4, 7]
    assert source.filled == [(0, [0, 1, 2]), (3, [3]), (4, [0, 1, 2]), (7, [3])]


def test_a_window_is_used_as_often_as_it_is_repeated() -> None:
    source = Source(repeat=2, window=2)
    steps = source.run(of(source, window=2, repeat=2), 8)
    assert sampled_at(steps) == [0, 0, 0, 0, 4, 4, 4, 4]
    assert [step[0].micro.step for step in steps] == [0, 1, 0, 1, 2, 3, 2, 3]


def test_rounds_begin_with_new_samples() -> None:
    source = Source()
    steps = source.run(of(source, window=None, rounds=3), 8, epochs=2)
    assert source.rounds == [3, 6]
    assert sampled_at(steps) == [0, 0, 0, 3, 4, 4, 6, 6]  # and so does a pass over the data


def test_accumulated_micro_batches_stay_together() -> None:
    source = Source(accumulation=3)
    steps = source.run(of(source, window=2), 4)
    assert [len(step) for step in steps] == [3, 3, 3, 3]
    assert sampled_at(steps) == [0, 0, 2, 2]


def test_what_is_spent_is_skipped_until_there_are_new_samples() -> None:
    source = Source(repeat=3)
    supply = of(source, repeat=3)
    micros = source.micros()
    first = supply.next(micros, 1, 0, 12)
    supply.spent = True
    second, third = supply.next(micros, 1, 1, 12), supply.next(micros, 1, 2, 12)
    fourth = supply.next(micros, 1, 3, 12)
    assert [step[0].idle for step in (first, second, third, fourth)] == [False, True, True, False]
    assert len(second[0].groups) == 1


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 6])
@pytest.mark.parametrize(("repeat", "window"), [(1, 3), (2, 2), (3, 1)])
def test_a_stopped_run_goes_on_with_the_samples_it_had(tmp_path: Path, repeat: int, window: int, stop: int) -> None:
    whole = Source(repeat=repeat, window=window)
    expected = whole.run(of(whole, window=window, repeat=repeat), 4 * repeat)
    source = Source(repeat=repeat, window=window)
    before = of(source, window=window, repeat=repeat)
    source.run(before, min(stop, 4 * repeat - 1), of=4 * repeat)
    before.save(tmp_path / "state.json")
    after = of(source, window=window, repeat=repeat)
    after.load(tmp_path / "state.json")
    done = source.step
    rest = source.run(after, 4 * repeat, skip=done)
    assert sampled_at(rest) == sampled_at(expected)[done:]
    assert [[micro.micro for micro in step] for step in rest] == [[m.micro for m in step] for step in expected[done:]]
    assert [step[0].groups[0].completions for step in rest] == [s[0].groups[0].completions for s in expected[done:]]


def test_the_round_is_remembered(tmp_path: Path) -> None:
    source = Source()
    supply = of(source, window=1, rounds=2)
    source.run(supply, 3, of=4)
    supply.save(tmp_path / "state.json")
    again = of(source, window=1, rounds=2)
    again.load(tmp_path / "state.json")
    source.run(again, 4, skip=3)
    assert source.rounds == [2]
