"""Means over items, gathered from all micro-batches and ranks of a logging window."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from accelerate.utils import gather_object
from torch import Tensor


class Meter:
    """Sums and counts by name; a mean is taken once, when it is read.

    Every item weighs the same, however items fell into micro-batches and ranks.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, float] = {}

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
        """Means over all ranks, and start anew. Every rank must call it."""
        names = list(self._sums)
        sums = torch.stack([self._sums[name].double().cpu() for name in names]).tolist() if names else []
        mine = {name: (total, self._counts[name]) for name, total in zip(names, sums, strict=True)}
        self._sums, self._counts = {}, {}
        found: dict[str, list[float]] = {}
        for part in gather_object([mine]) if world > 1 else [mine]:
            for name, (total, count) in part.items():
                entry = found.setdefault(name, [0.0, 0.0])
                entry[0] += total
                entry[1] += count
        return {name: total / count for name, (total, count) in sorted(found.items()) if count}
