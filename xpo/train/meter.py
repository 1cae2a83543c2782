"""Means and extremes over items, gathered from all micro-batches and ranks of a logging window."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from xpo.api.loss import Loss
from xpo.train.ranks import gathered


class Meter:
    """Sums and counts by name; a mean is taken once, when it is read.

    Every item weighs the same, however items fell into micro-batches and ranks.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, float] = {}
        #: Name -> the lowest of its items so far; of a highest, with its sign turned round.
        self._lowest: dict[str, tuple[int, Tensor]] = {}

    def add_loss(self, loss: Loss) -> None:
        """Add all that a loss wants to be logged."""
        self.add(loss.metrics)
        for sign, values in ((1, loss.lowest), (-1, loss.highest)):
            for name, items in values.items():
                if items.numel():
                    lowest = (sign * items.detach()).amin()
                    before = self._lowest.get(name)
                    self._lowest[name] = sign, lowest if before is None else torch.minimum(before[1], lowest)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add 1-D tensors of items. They stay on their device: reading them here would stall a GPU."""
        for name, items in values.items():
            total = items.detach().double().sum() if items.device.type != "mps" else items.detach().sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
            self._counts[name] = self._counts.get(name, 0.0) + float(items.numel())

    def add_share(self, name: str, share: Tensor, of: float) -> None:
        """Add a part of one item: ``of`` is the part of a step this call stands for, so that steps are averaged."""
        self._sums[name] = self._sums[name] + share.detach() if name in self._sums else share.detach()
        self._counts[name] = self._counts.get(name, 0.0) + of

    def read(self, world: int) -> dict[str, float]:
        """Means and extremes over all ranks, and start anew. Every rank must call it."""
        names = list(self._sums)
        sums = torch.stack([self._sums[name].double().cpu() for name in names]).tolist() if names else []
        mine = {name: (total, self._counts[name]) for name, total in zip(names, sums, strict=True)}
        extremes = {name: (sign, float(lowest)) for name, (sign, lowest) in self._lowest.items()}
        self._sums, self._counts, self._lowest = {}, {}, {}
        found: dict[str, list[float]] = {}
        lowest: dict[str, list[float]] = {}
        for means, ends in gathered((mine, extremes), world):
            for name, (total, count) in means.items():
                entry = found.setdefault(name, [0.0, 0.0])
                entry[0] += total
                entry[1] += count
            for name, (sign, value) in ends.items():
                known = lowest.setdefault(name, [sign, value])
                known[1] = min(known[1], value)
        read = {name: total / count for name, (total, count) in found.items() if count}
        return dict(sorted({**read, **{name: sign * value for name, (sign, value) in lowest.items()}}.items()))
