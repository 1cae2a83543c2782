"""What both models say in a test vector, as the tensors an algorithm gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from xpo.api.algorithm import Algorithm
from xpo.api.batch import Batch, Scores
from xpo.api.vocabulary import Distributions
from xpo.testing.case import Place, Setting, Told


class Spoken:
    """A setting with a batch, and the tensors that carry the gradient.

    Attributes:
        leaves: kind of number -> what the policy says.
        policy, reference: the same as scores; no reference where the algorithm asks for none or the case has none.
    """

    def __init__(self, setting: Setting, algorithm: Algorithm[Any], dtype: torch.dtype) -> None:
        self.setting, self.dtype = setting, dtype
        self.batch = Batch.of(setting.groups, dtype=dtype)
        self.leaves = {name: leaf.requires_grad_() for name, leaf in self._leaves(setting.policy).items()}
        self.policy = self._scores(self.leaves, setting.policy)
        self.reference: Scores | None = None
        if algorithm.needs.reference and setting.reference:
            self.reference = self._scores(self._leaves(setting.reference), setting.reference)

    def _table(self, values: Mapping[Place, Any]) -> Tensor:
        """Numbers of tokens as (C, T)."""
        table = torch.zeros(self.batch.mask.shape, dtype=self.dtype)
        for row, place in enumerate(self.setting.order()):
            value = values.get(place, ())
            table[row, : len(value)] = torch.tensor(value, dtype=self.dtype)
        return table

    def _logits(self, values: Mapping[Place, Any]) -> Tensor:
        """Logits as (n, V), a row for every token of the batch; 0 for completions that have none."""
        width = len(next(iter(values.values()))[0])
        rows: list[list[float]] = []
        for place, length in zip(self.setting.order(), self.batch.lengths.tolist(), strict=True):
            rows += values.get(place, [[0.0] * width] * length)
        return torch.tensor(rows, dtype=self.dtype)

    def _leaves(self, said: Told) -> dict[str, Tensor]:
        leaves: dict[str, Tensor] = {name: self._table(said[name]) for name in ("logps", "values") if name in said}
        if "logits" in said:
            leaves["logits"] = self._logits(said["logits"])
        if "rewards" in said:
            leaves["rewards"] = torch.tensor(
                [said["rewards"][place] for place in self.setting.order()], dtype=self.dtype
            )
        return leaves

    def _scores(self, leaves: Mapping[str, Tensor], said: Told) -> Scores:
        logps = leaves.get("logps", torch.zeros(self.batch.mask.shape, dtype=self.dtype))
        distributions = None
        if "logits" in leaves:
            distributions = Distributions(leaves["logits"], lambda states: states)
            # A completion without logits has made-up ids, and is not read from here.
            ids = self.batch.ids[self.batch.mask].clamp_max(leaves["logits"].shape[1] - 1)
            own = leaves["logits"].log_softmax(-1).gather(1, ids[:, None])[:, 0]
            from_logits = torch.tensor([place in said["logits"] for place in self.setting.order()])
            spread = torch.zeros_like(logps).masked_scatter(self.batch.mask, own)
            logps = torch.where(from_logits[:, None], spread, logps)
        if "rewards" in leaves:
            logps = torch.full_like(logps, float("nan"))
        logps = torch.where(self.batch.trainable[:, None], logps, logps.detach())
        return Scores(logps, self.batch.mask, distributions, leaves.get("values"), leaves.get("rewards"))
