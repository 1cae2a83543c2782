"""The order in which a run takes the groups of its data: what decides it, and the loader that follows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from torch.utils.data import DataLoader

from xpo.data.order import MicroBatch, StepData, StepSampler
from xpo.data.spread import Spread


class StepLoader(DataLoader[MicroBatch]):
    """Micro-batches in the order of a ``StepSampler``; the trainer tells it the epoch."""

    def __init__(self, data: StepData, sampler: StepSampler, workers: int = 0) -> None:
        super().__init__(data, batch_sampler=sampler, collate_fn=itemgetter(0), num_workers=workers)

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]  # a StepSampler


@dataclass(frozen=True)
class Steps:
    """What decides the order.

    Attributes:
        args: training arguments, as they are when a sampler is asked for.
        least: the fewest prompts that a micro-batch may hold.
        layout: how rows are laid out.
        iterations: how often the steps of a window are taken.
        window: steps of the data in one; None for all of a round.
        rounds: parts of the run.
    """

    args: Any
    least: int = 1
    layout: str = "tree"
    iterations: int = 1
    window: int | None = 1
    rounds: int = 1

    def loader(self, data: StepData, *, train: bool) -> StepLoader:
        """The micro-batches of some groups, to train on or to evaluate."""
        args = self.args
        size = args.per_device_train_batch_size if train else args.per_device_eval_batch_size
        return StepLoader(data, self.sampler(data, size, train=train), args.dataloader_num_workers)

    def sampler(self, data: StepData, size: int, *, train: bool) -> StepSampler:
        """The order of some groups, in parts of ``size`` on each rank."""
        args = self.args
        # Statistics of a micro-batch must not be those of long rows here and of short ones there.
        spread: Spread = "kept" if self.least > 1 else "even" if self.layout == "tree" else "alike"
        return StepSampler(
            data.groups,
            per_device=size,
            accumulation=args.gradient_accumulation_steps if train else 1,
            world=args.world_size,
            rank=args.process_index,
            seed=args.seed if args.data_seed is None else args.data_seed,
            shuffle=train and args.train_sampling_strategy != "sequential",
            similar=train and args.train_sampling_strategy == "group_by_length",
            spread=spread,
            least=self.least,
            repeat=self.iterations if train else 1,
            window=self._window(len(data.groups)) if train and self.iterations > 1 else 1,
            flag=f"--per_device_{'train' if train else 'eval'}_batch_size",
        )

    def _window(self, rows: int) -> int:
        """Steps of the data in a window of steps that are repeated."""
        if self.window is not None:
            return self.window
        args = self.args
        a_pass = -(-rows // (args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size))
        steps: float = args.max_steps / self.iterations if args.max_steps > 0 else args.num_train_epochs * a_pass
        return max(1, math.ceil(steps / self.rounds))
