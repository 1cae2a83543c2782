"""Noise contrastive alignment on scored lists, NCA (Chen et al. 2024, arXiv 2402.05369)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Paper, Scores, Term, option
from xpo.api.math import softplus
from xpo_zoo.logged import LIST_METRICS, rewards_of_lists
from xpo_zoo.ranking import listed_log_softmax, scored


def nca_list_loss(rewards: Tensor, scores: Tensor, real: Tensor, alpha: float) -> Tensor:
    """-sum over k of [ t_k log sigmoid(beta R_k) + 1/K log sigmoid(-beta R_k) ],  t = softmax(r / alpha).

    Args: (G, K) implicit rewards beta R summed over tokens, scores r, and where there is a completion.
    Returns: (G,) losses; 2 ln 2 where the policy equals the reference.
    """
    targets = listed_log_softmax(scores / alpha, real).exp()
    losses = targets * softplus(-rewards) + softplus(rewards) / real.sum(-1, keepdim=True).clamp_min(1)
    return losses.masked_fill(~real, 0.0).sum(-1)


@dataclass
class NCAListConfig(Config):
    """Settings of NCA on lists."""

    beta: float = option(0.01, "strength of the tie to the reference")
    alpha: float = option(1.0, "temperature of the scores; lower puts the target on the best completion")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.alpha > 0, f"alpha must be positive, not {self.alpha}")


class NCAList(Algorithm[NCAListConfig]):
    """Each implicit reward is fitted by itself, not only against the others, which keeps good completions likely."""

    name = "nca_list"
    summary = "noise contrastive loss on a list's implicit rewards, absolute ones"
    paper = Paper(
        "Noise Contrastive Alignment of Language Models with Explicit Rewards", "https://arxiv.org/abs/2402.05369", 2024
    )
    equation = (
        "L = mean over prompts of -sum over k of [ t_k log sigmoid(beta R_k) + 1/K log sigmoid(-beta R_k) ],  "
        "t = softmax(r / alpha)"
    )
    data = "lists"
    needs = Needs(reference=True, scores=True)
    Config = NCAListConfig
    metrics = LIST_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    golden = {"nca": {}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        return scored(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        rewards = self.config.beta * (policy.sum() - reference.sum())
        losses = nca_list_loss(batch.lists(rewards), batch.lists(batch.scores), batch.slots[1], self.config.alpha)
        return Loss([Term(losses, "group")], rewards_of_lists(batch, rewards, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float | None:
        return 2.0 * math.log(2.0)
