"""Anchored preference optimisation, APO-down (D'Oosterlinck et al. 2024, arXiv 2408.06266)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs


def apo_down_loss(chosen_rewards: Tensor, rejected_rewards: Tensor) -> Tensor:
    """sigmoid(r_w) + [1 - sigmoid(r_w - r_l)].

    Args: two (P,) rewards r = beta R, with R the log-ratio summed over tokens.
    Returns: (P,) losses; 1 each where the policy equals the reference. 1 - sigmoid(r) is written sigmoid(-r), which
        keeps its digits.
    """
    return torch.sigmoid(chosen_rewards) + torch.sigmoid(rejected_rewards - chosen_rewards)


@dataclass
class APODownConfig(Config):
    """Settings of APO-down."""

    beta: float = option(0.1, "strength of the tie to the reference; higher stays closer to it (0.01 to 0.5)")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")


class APODown(Algorithm[APODownConfig]):
    """Lower both completions, the rejected one more.

    For data whose chosen completions are worse than what the model writes. A pair far from the reference no longer
    pulls.
    """

    name = "apo_down"
    summary = "lowers both completions below the reference, the rejected one more"
    paper = Paper(
        "Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in Alignment",
        "https://arxiv.org/abs/2408.06266",
        2024,
    )
    equation = "L = mean over pairs of sigmoid(r_w) + 1 - sigmoid(r_w - r_l),  r = beta (log pi(y|x) - log ref(y|x))"
    data = "pairs"
    needs = Needs(reference=True)
    Config = APODownConfig
    metrics = PAIR_METRICS
    training = {"learning_rate": 2e-7}
    lora_training = {"learning_rate": 2e-6}
    lowers = ("rejected",)  # the chosen completion is pulled both ways: down by itself, up by the pair
    accepts = {"loss_type": "apo_down"}
    golden = {"apo_down": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        rewards = self.config.beta * (policy.sum() - reference.sum())
        losses = apo_down_loss(*batch.pairs(rewards))
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, rewards, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float:
        return 1.0
