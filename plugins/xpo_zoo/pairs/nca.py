"""Noise contrastive alignment on pairs (Chen et al. 2024, arXiv 2402.05369)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import softplus


def nca_loss(chosen_rewards: Tensor, rejected_rewards: Tensor) -> Tensor:
    """-log sigmoid(r_w) - 1/2 log sigmoid(-r_w) - 1/2 log sigmoid(-r_l).

    Args: two (P,) rewards r = beta R, with R the log-ratio summed over tokens.
    Returns: (P,) losses; 2 ln 2 each where the policy equals the reference. The first two terms hold r_w at ln 2 above
        the reference: the chosen completion cannot fall as it can in DPO.
    """
    return softplus(-chosen_rewards) + 0.5 * softplus(chosen_rewards) + 0.5 * softplus(rejected_rewards)


@dataclass
class NCAConfig(Config):
    """Settings of NCA."""

    beta: float = option(0.01, "strength of the tie to the reference; higher stays closer to it (0.01 to 0.1)")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")


class NCA(Algorithm[NCAConfig]):
    """Each completion is told apart from noise by itself, so that absolute likelihoods count and not margins alone."""

    name = "nca"
    summary = "noise contrast of each completion, which keeps the chosen likelihood from falling"
    paper = Paper(
        "Noise Contrastive Alignment of Language Models with Explicit Rewards", "https://arxiv.org/abs/2402.05369", 2024
    )
    equation = (
        "L = mean over pairs of -log sigmoid(r_w) - 1/2 log sigmoid(-r_w) - 1/2 log sigmoid(-r_l),  "
        "r = beta (log pi(y|x) - log ref(y|x))"
    )
    data = "pairs"
    needs = Needs(reference=True)
    Config = NCAConfig
    metrics = PAIR_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    lowers = ("rejected",)  # the chosen completion is held where it is best, from both sides
    accepts = {"loss_type": "nca_pair"}
    golden = {"nca_pair": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        rewards = self.config.beta * (policy.sum() - reference.sum())
        losses = nca_loss(*batch.pairs(rewards))
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, rewards, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float:
        return 2.0 * math.log(2.0)
