"""Which groups make up each optimiser step, in which micro-batch and on which rank.

The order follows from seed and epoch alone. Steps are cut from it before they are split into micro-batches and ranks,
so 1 x 8, 8 x 1 and two processes of 4 take the same steps over the same rows. How a step is split goes by length.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch.utils.data import Dataset, Sampler

from xpo.api.groups import Group
from xpo.data.beside import Beside
from xpo.data.spread import Spread, by_length, even, spread
from xpo.errors import DataError, PluginError, SettingError


@dataclass(frozen=True, slots=True)
class MicroStep:
    """One rank's part of one micro-batch.

    Attributes:
        step: number of the optimiser step within the epoch.
        epoch: the epoch.
        rows: indices of the groups of the whole step, over all micro-batches and ranks, in order.
        part: positions in the step of the rows of this part; none when there are fewer rows than ranks.
        before: rows that all earlier steps took, over all epochs.
    """

    step: int
    epoch: int
    rows: tuple[int, ...]
    part: tuple[int, ...]
    before: int = 0


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The groups of a ``MicroStep``; when it has none, one stand-in with ``idle`` set, which must not count."""

    groups: list[Group]
    idle: bool
    micro: MicroStep


class StepSampler(Sampler[list[MicroStep]]):
    """Yields ``[MicroStep]`` for one rank: the ``batch_sampler`` of a ``DataLoader`` over ``StepData``.

    Args:
        groups: the data.
        per_device: groups of a micro-batch on each rank.
        accumulation: micro-batches of a step.
        world: number of ranks.
        rank: this one.
        seed: decides the order, together with the epoch.
        shuffle: False keeps the order of the data.
        similar: make steps of rows of similar length; the steps are shuffled, and the rows before they are grouped.
        spread: how the rows of a step are spread over micro-batches and ranks.
        least: fewest groups a micro-batch may hold over all ranks; rows of a last step that cannot are left out.
        balanced: spread labels (or forget and retain) evenly when shuffling; None decides from the data.
        flag: the setting that ``per_device`` came from, for messages.
        repeat: how often steps are taken, for updates that reuse a rollout.
        window: steps in a row that are repeated together.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        *,
        per_device: int,
        accumulation: int,
        world: int,
        rank: int,
        seed: int,
        shuffle: bool = True,
        similar: bool = False,
        spread: Spread = "kept",
        least: int = 1,
        balanced: bool | None = None,
        repeat: int = 1,
        window: int = 1,
        flag: str = "--per_device_train_batch_size",
    ) -> None:
        if len(groups) < max(least, 1):
            raise DataError(f"The data has {len(groups)} rows, and the algorithm needs at least {least} in a batch")
        if per_device * world < least:
            raise SettingError(
                f"A micro-batch of {per_device} rows on each of {world} processes holds fewer than the {least} rows "
                f"the algorithm needs; set {flag} to {-(-least // world)} or more"
            )
        self.micro = per_device * world
        self.accumulation, self.world, self.rank = accumulation, world, rank
        self.seed, self.shuffle, self.least = seed, shuffle, least
        self.similar, self.spread = similar, spread
        self.repeat, self.window = repeat, window
        self.epoch = 0
        self._lengths = [group.length for group in groups]
        strata: dict[object, list[int]] = {}
        for number, group in enumerate(groups):
            strata.setdefault(None if balanced is False else _stratum(group), []).append(number)
        if balanced and len(strata) < 2:
            raise DataError("Balancing needs data of two labels; the rows have only one, or none")
        self._strata = list(strata.values())
        full, rest = divmod(len(groups), self.micro * accumulation)
        self._last = self._kept(rest)
        self.left_out = rest - self._last
        self._count = len(groups)
        self.steps = full + (self._last > 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.repeat > 1:
            return self.repeat * self.steps * self.accumulation
        full = self.steps - (self._last > 0)
        return full * self.accumulation + -(-self._last // self.micro)

    def __iter__(self) -> Iterator[list[MicroStep]]:
        order = self.order()
        size = self.micro * self.accumulation
        before = self.epoch * (self._count - self.left_out)
        for first in range(0, self.steps, self.window):
            for step in [*range(first, min(first + self.window, self.steps))] * self.repeat:
                rows = tuple(order[step * size : min((step + 1) * size, self._count - self.left_out)])
                parts = self._parts(rows)
                if self.repeat > 1:
                    # The loop counts micro-batches: it would fill up a short step with the start of what comes next.
                    parts += [()] * (self.accumulation - len(parts))
                for part in parts:
                    yield [MicroStep(step, self.epoch, rows, part, before + step * size)]

    def order(self) -> list[int]:
        """The order of this epoch, the same on every rank."""
        if not self.shuffle:
            return list(range(self._count))
        # hash() differs from process to process, and nearby integer seeds give related streams; a digest does neither.
        digest = hashlib.sha256(f"order {self.seed} {self.epoch}".encode()).digest()
        rng = random.Random(int.from_bytes(digest[:8], "big"))
        placed: list[tuple[float, int]] = []
        for stratum in self._strata:
            rows = list(stratum)
            rng.shuffle(rows)
            # The n rows of a stratum stand 1/n apart on the unit interval, so every window has about its share of each.
            offset = rng.random()
            placed += [((number + offset) / len(rows), row) for number, row in enumerate(rows)]
        order = [row for _, row in sorted(placed)]
        if not self.similar:
            return order
        steps = by_length(order, self._lengths, self.micro * self.accumulation)
        # The last step may be short, and rows of it left out: it stays the last.
        full, last = (steps[:-1], steps[-1:]) if len(steps[-1]) < len(steps[0]) else (steps, [])
        rng.shuffle(full)
        return [row for rows in (*full, *last) for row in rows]

    def _kept(self, rest: int) -> int:
        """How many of the last step's rows are used: the most that leave no micro-batch with fewer than ``least``."""
        return next(n for n in range(rest, -1, -1) if n == 0 or n // -(-n // self.micro) >= self.least)

    def _parts(self, rows: Sequence[int]) -> list[tuple[int, ...]]:
        """This rank's part of each micro-batch of a step; sizes as even as can be, ``per_device`` in a full step."""
        micros = [even(micro, self.world) for micro in even(len(rows), -(-len(rows) // self.micro))]
        parts = spread([self._lengths[row] for row in rows], micros, self.spread)
        return [tuple(part[self.rank]) for part in parts]


class StepData(Dataset[MicroBatch]):
    """Groups by ``MicroStep``, after the algorithm's ``collate`` has seen the whole step.

    Args:
        groups: the data, as the sampler numbers it.
        collate: the algorithm's; gets copies, so that what it adds is gone in the next epoch.
        beside: rows that ride along, one of each set beside every row; collate sees them after the step's own.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        collate: Callable[[Sequence[Group]], list[Group]],
        beside: Sequence[Beside] = (),
    ) -> None:
        self.groups = groups
        self.collate = collate
        self.beside = beside
        self._of: tuple[int, tuple[int, ...]] | None = None
        self._step: list[list[Group]] = []

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, micro: MicroStep) -> MicroBatch:
        # The micro-batches of a step come one after the other, and collate sees all of it each time.
        if (micro.before, micro.rows) != self._of:
            self._step = self._collated(micro)
            self._of = micro.before, micro.rows
        groups = [group for position in micro.part or (0,) for group in self._step[position]]
        return MicroBatch(groups, not micro.part, micro)

    def _collated(self, micro: MicroStep) -> list[list[Group]]:
        """For every row of the step its group and those that ride beside it."""
        count = len(micro.rows)
        given = [self.groups[row] for row in micro.rows]
        for rows in self.beside:
            given += [rows.at(micro.before + position) for position in range(count)]
        groups = self.collate([_copy(group) for group in given])
        if len(groups) != len(given):
            raise PluginError(
                f"collate() got the {len(given)} groups of a step and returned {len(groups)}; it must return as many, "
                f"in the same order (it may change their completions)"
            )
        return [groups[position::count] for position in range(count)]


def single(batch: list[MicroBatch]) -> MicroBatch:
    """The ``collate_fn`` of a ``DataLoader`` whose batches are one ``MicroBatch`` each."""
    return batch[0]


def _stratum(group: Group) -> object:
    """What shuffling spreads evenly: the label or the role of a group's one completion; None for other groups."""
    if len(group.completions) != 1:
        return None
    return group.completions[0].label, group.completions[0].role


def _copy(group: Group) -> Group:
    completions = [replace(completion, columns=dict(completion.columns)) for completion in group.completions]
    return replace(group, completions=completions, pairs=list(group.pairs), columns=dict(group.columns))
