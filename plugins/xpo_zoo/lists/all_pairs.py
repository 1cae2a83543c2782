"""The logistic loss on all pairs of a list: DPO on lists, a baseline of LiPO (Liu et al. 2024, arXiv 2402.01878)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Paper, Scores, Term, option
from xpo.api.math import softplus
from xpo_zoo.logged import LIST_METRICS, rewards_of_lists
from xpo_zoo.ranking import beats, scored


def all_pairs_loss(s: Tensor, better: Tensor, *, average: bool = True) -> Tensor:
    """Sum, or mean, over psi_i > psi_j of -log sigmoid(s_i - s_j).

    Args: (G, K) numbers to rank by, (G, K, K) True where psi_i > psi_j; ties are in no pair.
    Returns: (G,) losses; 0 for a list without a pair.
    """
    losses = softplus(s[:, None, :] - s[:, :, None]).masked_fill(~better, 0.0).sum((1, 2))
    return losses / better.sum((1, 2)).clamp_min(1) if average else losses


@dataclass
class AllPairsConfig(Config):
    """Settings of the loss on all pairs."""

    beta: float = option(0.05, "strength of the tie to the reference (0.05 to 0.5)")
    average: bool = option(True, "average over the pairs of a list; false sums them, so that long lists weigh more")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")


class AllPairs(Algorithm[AllPairsConfig]):
    """Every pair of a list whose scores differ is a pair of DPO."""

    name = "all_pairs"
    summary = "DPO's logistic loss on every pair of a scored list"
    paper = Paper(
        "LiPO: Listwise Preference Optimization through Learning-to-Rank", "https://arxiv.org/abs/2402.01878", 2024
    )
    equation = "L = mean over prompts of mean (or sum) over psi_i > psi_j of -log sigmoid(s_i - s_j),  s = beta R"
    data = "lists"
    needs = Needs(reference=True, scores=True)
    Config = AllPairsConfig
    metrics = LIST_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("best",)
    lowers = ("worst",)
    golden = {"pairwise_logistic_list": {}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        return scored(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        rewards = self.config.beta * (policy.sum() - reference.sum())
        losses = self._losses(batch, batch.lists(rewards))
        return Loss([Term(losses, "group")], rewards_of_lists(batch, rewards, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float | None:
        """ln 2 a pair."""
        return float(self._losses(batch, torch.zeros_like(batch.lists(batch.scores))).mean())

    def _losses(self, batch: Batch, s: Tensor) -> Tensor:
        better = beats(batch.lists(batch.scores), batch.slots[1])
        return all_pairs_loss(s, better, average=self.config.average)
