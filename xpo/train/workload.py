"""The work of a run before it begins: which rows its steps take, and what each layout makes of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter
from typing import Any

from xpo.api.algorithm import Algorithm
from xpo.api.batch import Batch
from xpo.api.groups import Completion, Group
from xpo.data.beside import Beside
from xpo.data.order import StepData, StepSampler
from xpo.data.spread import Spread
from xpo.feedback.sampling import Sampling
from xpo.models.layout import Arrange, pack
from xpo.train.material import Material
from xpo.train.online import Forming, forming_of
from xpo.train.settings import Settings

#: Micro-batches among which the heaviest are looked for, and steps that are laid out to count positions.
SCANNED, COUNTED = 20_000, 50


@dataclass(frozen=True)
class Positions:
    """What a layout makes of some optimiser steps, on one process.

    Attributes:
        computed: positions that go through the policy in a step, on average.
        tokens: those of them that hold a token.
    """

    computed: float
    tokens: float

    @property
    def fill(self) -> float:
        """Share of positions that hold a token."""
        return self.tokens / self.computed if self.computed else 1.0


class Workload:
    """The steps of a run.

    Args:
        sampling: how completions are sampled, for methods that do; stand-ins of the greatest length take their place.
    """

    def __init__(
        self, settings: Settings, algorithm: Algorithm[Any], material: Material, sampling: Sampling | None
    ) -> None:
        self.args = settings.training
        self.least = algorithm.needs.least
        self.iterations = 1 if settings.rollout is None else settings.rollout.num_iterations
        train = [one for group in material.train for one in expected(group, sampling, forming_of(settings))]
        #: Groups that come of a row: of labels, one for every sample.
        self.groups_a_row = len(train) // len(material.train)
        beside = [Beside(rows, self.args.seed) for rows in material.beside[0]]
        self.data = StepData(train, algorithm.collate, beside)
        self.longest = max(train, key=attrgetter("length"))
        self.usual = self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps
        sampler = self._sampler(*self.usual, "tree")
        self.left_out = sampler.left_out
        #: Optimiser steps of a pass over the data, and of the run.
        self.steps_a_pass = sampler.steps * self.iterations
        wanted = math.ceil(self.args.num_train_epochs * self.steps_a_pass)
        self.steps = self.args.max_steps if self.args.max_steps > 0 else wanted

    @property
    def rows_a_step(self) -> int:
        """Rows of an optimiser step, on all processes."""
        size, accumulation = self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps
        return int(size * accumulation * self.args.world_size)

    def first(self, layout: str) -> list[Group]:
        """The groups by which the guard compares layouts."""
        return [*next(self._micros(*self.usual, layout))[1], self.longest]

    def heaviest(self, size: int, accumulation: int, layout: str, reach: float) -> list[Batch]:
        """The micro-batches that take most, when micro-batches are of ``size`` rows on each process.

        Args:
            reach: of the trees that rows are packed into.
        """
        best: dict[str, tuple[float, list[Group]]] = {}
        for _, groups in islice(self._micros(size, accumulation, layout), SCANNED):
            rows, width = extent(groups, layout, reach)
            # Most of what is held grows with positions; masks and attention, with the square of a row.
            for what, weight in (("positions", rows * width), ("squares", rows * width * width)):
                if what not in best or weight > best[what][0]:
                    best[what] = weight, groups
        found = [groups for _, groups in best.values()]
        return [Batch.of(groups) for number, groups in enumerate(found) if not number or groups is not found[0]]

    def positions(self, layout: str, arrange: Arrange) -> Positions:
        """Positions of an optimiser step on one process, as the mean over some steps of the run, evenly spaced."""
        stride = -(-min(self.steps // self.iterations, SCANNED // self.usual[1]) // COUNTED) or 1
        steps, computed, tokens = set(), 0, 0
        for step, groups in islice(self._micros(*self.usual, layout), SCANNED):
            if step % stride:
                continue
            steps.add(step)
            batch = Batch.of(groups)
            for trainable in (True, False):
                index = (batch.trainable == trainable).nonzero().flatten()
                if index.numel():
                    rows = arrange(batch, index)
                    computed += rows.real.numel()
                    tokens += int(rows.real.sum())
        return Positions(computed / len(steps), tokens / len(steps))

    def _micros(self, size: int, accumulation: int, layout: str) -> Iterator[tuple[int, list[Group]]]:
        """Micro-batches of this process in order, each once, with the number of their step in the run."""
        sampler = self._sampler(size, accumulation, layout)
        steps = self.steps // self.iterations or 1
        for epoch in range(-(-steps // sampler.steps)):
            sampler.set_epoch(epoch)
            for (micro,) in sampler:
                number = epoch * sampler.steps + micro.step
                if number >= steps:
                    return
                if micro.part:
                    yield number, self.data[micro].groups

    def _sampler(self, size: int, accumulation: int, layout: str) -> StepSampler:
        """As the trainer makes it, for micro-batches of another size."""
        args = self.args
        spread: Spread = "kept" if self.least > 1 else "even" if layout == "tree" else "alike"
        return StepSampler(
            self.data.groups,
            per_device=size * self.groups_a_row,
            accumulation=accumulation,
            world=args.world_size,
            rank=args.process_index,
            seed=args.seed if args.data_seed is None else args.data_seed,
            shuffle=args.train_sampling_strategy != "sequential",
            similar=args.train_sampling_strategy == "group_by_length",
            spread=spread,
            least=self.least,
        )


def heaviest_chunk(groups: Sequence[Group], size: int, layout: str, reach: float) -> list[Batch]:
    """Of groups that are scored in their order, ``size`` at once, those that take most."""
    chunks = [list(groups[start : start + size]) for start in range(0, len(groups), size)]
    chunk = max(chunks, key=lambda chunk: math.prod(extent(chunk, layout, reach)), default=None)
    return [] if chunk is None else [Batch.of(chunk)]


def extent(groups: Sequence[Group], layout: str, reach: float) -> tuple[int, int]:
    """(rows, width) of the completions with gradient; of trees an upper bound, as if branches shared nothing."""
    if layout == "padded":
        sizes = [
            len(group.prompt_ids) + len(one.ids) - 1 for group in groups for one in group.completions if one.trainable
        ]
        return len(sizes), max(sizes, default=0)
    trees: dict[tuple[int, ...], int] = {}
    for group in groups:
        branches = [len(one.ids) - 1 for one in group.completions if one.trainable]
        if branches:
            stem = tuple(group.prompt_ids)
            trees[stem] = trees.get(stem, len(stem)) + sum(branches)
    sizes = list(trees.values())
    rows = pack(sizes, reach) if sizes else []
    return len(rows), max((sum(sizes[index] for index in row) for row in rows), default=0)


def expected(group: Group, sampling: Sampling | None, forming: Forming | None) -> list[Group]:
    """What is trained on for a row of the data: the row, or what will be sampled for it at most."""
    if sampling is None:
        return [group]
    whole = answered(group, sampling)
    return [whole] if forming is None else forming.anyway(whole)


def answered(group: Group, sampling: Sampling) -> Group:
    """A prompt with stand-ins for what will be sampled, as long as can be and different from the first token on."""
    ids = [[number] * sampling.max_tokens for number in range(sampling.samples)]
    return replace(group, completions=[Completion(one, score=float(one[0])) for one in ids])
