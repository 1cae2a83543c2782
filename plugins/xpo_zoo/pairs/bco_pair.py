"""Binary classifier optimisation on pairs (Jung et al. 2024, arXiv 2404.04656)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import softplus


def bco_pair_loss(chosen_rewards: Tensor, rejected_rewards: Tensor, delta: float) -> Tensor:
    """-log sigmoid(r_w - delta) - log sigmoid(-(r_l - delta)).

    Args: two (P,) rewards r = beta R, with R the log-ratio summed over tokens, and their running mean delta.
    Returns: (P,) losses; 2 ln 2 each where the policy equals the reference and delta is 0.
    """
    return softplus(delta - chosen_rewards) + softplus(rejected_rewards - delta)


@dataclass
class BCOPairConfig(Config):
    """Settings of BCO on pairs."""

    beta: float = option(0.01, "strength of the tie to the reference; higher stays closer to it (0.01 to 0.1)")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")


class BCOPair(Algorithm[BCOPairConfig]):
    """Chosen and rejected completions are two classes, told apart at the mean reward so far.

    The mean is that of the means of the micro-batches so far, over all processes, the one at hand included.
    """

    name = "bco_pair"
    summary = "classifies chosen against rejected completions by their reward, shifted by its running mean"
    paper = Paper(
        "Binary Classifier Optimization for Large Language Model Alignment", "https://arxiv.org/abs/2404.04656", 2024
    )
    equation = (
        "L = mean over pairs of -log sigmoid(r_w - delta) - log sigmoid(-(r_l - delta)),  "
        "r = beta (log pi(y|x) - log ref(y|x)),  delta = running mean of r over both"
    )
    data = "pairs"
    needs = Needs(reference=True)
    Config = BCOPairConfig
    metrics = {**PAIR_METRICS, "delta": "mean of the rewards of all micro-batches trained on"}
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    accepts = {"loss_type": "bco_pair"}
    golden = {"bco_pair": {}}

    def __init__(self, config: BCOPairConfig | None = None) -> None:
        super().__init__(config)
        self.delta, self.delta_count = 0.0, 0

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        rewards = self.config.beta * (policy.sum() - reference.sum())
        chosen, rejected = batch.pairs(rewards)
        if torch.is_grad_enabled():  # evaluation leaves it where training has brought it
            self.delta_count += 1
            self.delta += (float(batch.global_mean(torch.cat([chosen, rejected]))) - self.delta) / self.delta_count
        losses = bco_pair_loss(chosen, rejected, self.delta)
        metrics = rewards_of_pairs(batch, rewards, policy.sum())
        return Loss([Term(losses, "pair")], {**metrics, "delta": rewards.new_tensor([self.delta])})

    def value_at_reference(self, batch: Batch) -> float | None:
        return None if self.delta else 2.0 * math.log(2.0)

    def state_dict(self) -> dict[str, Any]:
        return {"delta": self.delta, "delta_count": self.delta_count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.delta, self.delta_count = float(state.get("delta", 0.0)), int(state.get("delta_count", 0))
