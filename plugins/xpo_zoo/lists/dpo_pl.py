"""DPO under the Plackett-Luce model of rankings (Rafailov et al. 2023, arXiv 2305.18290, appendix A.3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Paper, Scores, Term, option
from xpo_zoo.logged import LIST_METRICS, rewards_of_lists
from xpo_zoo.ranking import ranks, scored, tied


def plackett_luce_loss(utilities: Tensor, places: Tensor, real: Tensor) -> Tensor:
    """-sum over k of log [ e^s_(k) / sum over j >= k of e^s_(j) ],  s_(k) the utility of the k-th best.

    Args: (G, K) utilities, ranks from 1 that they should have, and where there is a completion.
    Returns: (G,) negative log-likelihoods of the ranking; ln K! where all utilities are equal.
    """
    not_before = (places[:, None, :] >= places[:, :, None]) & (real[:, None, :] | ~real[:, :, None])
    rest = utilities[:, None, :].masked_fill(~not_before, -math.inf).logsumexp(-1)
    return (rest - utilities).masked_fill(~real, 0.0).sum(-1)


@dataclass
class DPOPLConfig(Config):
    """Settings of DPO-PL."""

    beta: float = option(0.1, "strength of the tie to the reference; higher stays closer to it (0.01 to 0.5)")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")


class DPOPL(Algorithm[DPOPLConfig]):
    """DPO for whole rankings: the best is chosen from all, the second from the others, and so on.

    Completions with equal scores rank in the order of the data.
    """

    name = "dpo_pl"
    summary = "likelihood of a whole ranking under Plackett-Luce, with log-ratios to a reference as utilities"
    paper = Paper("Direct Preference Optimization", "https://arxiv.org/abs/2305.18290", 2023)
    equation = "L = mean over prompts of -sum over k < K of log [ e^s_(k) / sum over j >= k of e^s_(j) ],  s = beta R"
    data = "lists"
    needs = Needs(reference=True, scores=True)
    Config = DPOPLConfig
    metrics = LIST_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("best",)
    lowers = ("worst",)
    golden = {"dpo_pl": {}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        return scored(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        rewards = self.config.beta * (policy.sum() - reference.sum())
        losses = self._losses(batch, batch.lists(rewards))
        return Loss([Term(losses, "group")], rewards_of_lists(batch, rewards, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float | None:
        """Mean of ln K!, 0 for lists without an order."""
        return float(self._losses(batch, torch.zeros_like(batch.lists(batch.scores))).mean())

    def _losses(self, batch: Batch, s: Tensor) -> Tensor:
        scores, real = batch.lists(batch.scores), batch.slots[1]
        return plackett_luce_loss(s, ranks(scores, real), real).masked_fill(tied(scores, real), 0.0)
