"""DPO with a beta that follows the data (Wu et al. 2024, arXiv 2407.08639)."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import softplus


def smallest(batch: Batch, keys: Tensor, count: int) -> Tensor:
    """(n,) True for the ``count`` smallest of the keys of all ranks together, from sums over ranks alone.

    Each round cuts the interval in which the last of them lies into 256.

    Args: (n,) keys of this rank; those of an idle one do not count.
    """
    low, high = -100.0, 1e4  # of -log(uniform), logarithm taken, plus half a squared deviation
    keys = keys.clamp(low, high)
    counted = keys[: 0 if batch.idle else None, None]
    for _ in range(4):
        edges = torch.linspace(low, high, 257, dtype=keys.dtype, device=keys.device)
        found = batch.reduce((counted <= edges).sum(0).to(keys.dtype))
        place = int((found < count).sum().clamp(1, 256))
        low, high = edges[place - 1].item(), edges[place].item()
    return keys <= high


@dataclass
class BetaDPOConfig(Config):
    """Settings of beta-DPO."""

    beta: float = option(0.1, "beta of a micro-batch whose mean margin is the running mean (0.01 to 0.5)")
    a: float = option(0.6, "how far beta follows the mean margin, per nat; 0 leaves it constant")
    rho: float = option(0.2, "share of the pairs of a micro-batch that is left out, unusual margins first, in [0, 1)")
    momentum: float = option(0.9, "of the running mean and spread of margins, in [0, 1)")
    beta_min: float = option(1e-3, "beta does not fall below this")
    selection_seed: int = option(0, "seed of the choice of pairs")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.a >= 0, f"a must not be negative, not {self.a}")
        self.require(0 <= self.rho < 1, f"rho must be in [0, 1), not {self.rho}")
        self.require(0 <= self.momentum < 1, f"momentum must be in [0, 1), not {self.momentum}")
        self.require(self.beta_min > 0, f"beta_min must be positive, not {self.beta_min}")


class BetaDPO(Algorithm[BetaDPOConfig]):
    """A larger beta where margins are large, and pairs of unusual margin mostly left out.

    Both go by the micro-batch on all processes, so results depend on its size. Evaluation leaves out no pair.
    """

    name = "beta_dpo"
    summary = "DPO whose beta follows the mean margin of a micro-batch, with outliers left out"
    paper = Paper("β-DPO: Direct Preference Optimization with Dynamic β", "https://arxiv.org/abs/2407.08639", 2024)
    equation = (
        "L = mean over kept pairs of -log sigmoid(b D),  D = R_w - R_l,  R = log pi(y|x) - log ref(y|x),  "
        "b = max(beta_min, beta (1 + a (mean of kept D - M))),  kept by weights exp(-((D - M)/s)^2 / 2),  "
        "M, s running mean and spread of D"
    )
    data = "pairs"
    needs = Needs(reference=True, least=2)
    Config = BetaDPOConfig
    metrics = {
        **PAIR_METRICS,
        "beta_used": "beta of the micro-batch; the rewards above are those of the setting beta",
        "gap_mean": "M: running mean of the margins of log-ratios, in nats",
        "gap_std": "s: running standard deviation of them",
        "mask_count": "pairs of a micro-batch that were kept",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    golden = {"beta_dpo": {}}

    def __init__(self, config: BetaDPOConfig | None = None) -> None:
        super().__init__(config)
        self.gap_mean, self.gap_std, self.batches = 0.0, 0.0, 0

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logratios = policy.sum() - reference.sum()
        chosen, rejected = batch.pairs(logratios)
        gaps = (chosen - rejected).detach()
        if torch.is_grad_enabled():
            self._observe(batch, gaps)
        keep = self._keep(batch, gaps)
        pairs, kept = self._count(batch, gaps), self._count(batch, gaps[keep])
        config = self.config
        drift = float(batch.global_mean(gaps[keep])) - self.gap_mean
        beta = max(config.beta_min, config.beta * (1.0 + config.a * drift))
        # The loop divides by all pairs; the mean is to be over those kept.
        losses = keep * softplus(-beta * (chosen - rejected)) * (pairs / max(kept, 1.0))
        seen = {"beta_used": beta, "gap_mean": self.gap_mean, "gap_std": self.gap_std, "mask_count": kept}
        metrics = rewards_of_pairs(batch, config.beta * logratios, policy.sum())
        return Loss([Term(losses, "pair")], metrics | {name: gaps.new_tensor([value]) for name, value in seen.items()})

    def _observe(self, batch: Batch, gaps: Tensor) -> None:
        """Move the running moments. An idle rank adds no margin, but follows those of the others."""
        mean, spread = (float(moment) for moment in batch.global_moments(gaps))
        old = self.config.momentum
        self.gap_mean = old * self.gap_mean + (1.0 - old) * mean
        # The mean starts at the reference, where it is 0; the spread with the first there is, not with a tenth of it.
        self.gap_std = old * self.gap_std + (1.0 - old) * spread if self.gap_std else spread
        self.batches += 1

    def _keep(self, batch: Batch, gaps: Tensor) -> Tensor:
        """(P,) which pairs count: those the data names in a column ``keep``, or a random choice, the same on all ranks.

        Drawing without replacement by weights is taking the smallest of E / weight, with E exponential (Efraimidis and
        Spirakis 2006). E follows from the row and not from its place, so a choice does not depend on who holds it.
        """
        if "keep" in batch.group_columns:
            return batch.group_columns["keep"][batch.group[batch.chosen]] > 0
        if not (self.config.rho and torch.is_grad_enabled()):
            return torch.ones_like(gaps, dtype=torch.bool)
        stream = f"{self.config.selection_seed}/{self.batches}"
        draws = [
            random.Random(f"{stream}/{group.row}/{number}").expovariate(1.0)
            for group in batch.groups
            for number in range(len(group.pairs))
        ]
        deviation = (gaps - self.gap_mean) / self.gap_std if self.gap_std else torch.zeros_like(gaps)
        keys = gaps.new_tensor(draws).log() + 0.5 * deviation.square()
        count = max(1, round((1.0 - self.config.rho) * self._count(batch, gaps)))
        return smallest(batch, keys, count)

    @staticmethod
    def _count(batch: Batch, values: Tensor) -> float:
        """How many values all ranks hold together."""
        return float(batch.reduce(values.new_tensor(0.0 if batch.idle else float(values.numel()))))

    def value_at_reference(self, batch: Batch) -> float:
        return math.log(2.0)

    def state_dict(self) -> dict[str, Any]:
        return {"gap_mean": self.gap_mean, "gap_std": self.gap_std, "batches": self.batches}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.gap_mean = float(state.get("gap_mean", 0.0))
        self.gap_std, self.batches = float(state.get("gap_std", 0.0)), int(state.get("batches", 0))
