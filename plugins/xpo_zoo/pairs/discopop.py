"""DiscoPOP, a loss that a language model found: the log-ratio modulated loss (Lu et al. 2024, arXiv 2406.08414)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import bounded, logsigmoid, softplus


def discopop_loss(margins: Tensor, beta: float, tau: float) -> Tensor:
    """(1 - g) softplus(-z) + g e^-z with z = beta D and g = sigmoid(z / tau).

    Args: (P,) margins D, the difference of the log-ratios of chosen and rejected.
    Returns: (P,) losses, logistic left of 0 and exponential right of it; (ln 2 + 1) / 2 where policy equals reference.
    """
    z = beta * margins
    # g e^-z in one exponent: far left g is 0 and e^-z overflows. With tau above 1 e^-z wins, and needs a bound.
    exponential = torch.exp(bounded(logsigmoid(z / tau) - z))
    return torch.sigmoid(-z / tau) * softplus(-z) + exponential


@dataclass
class DiscoPOPConfig(Config):
    """Settings of DiscoPOP."""

    beta: float = option(0.05, "strength of the tie to the reference; higher stays closer to it")
    tau: float = option(
        0.05, "width of the change from logistic to exponential loss, in units of beta times the margin"
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.tau > 0, f"tau must be positive, not {self.tau}")


class DiscoPOP(Algorithm[DiscoPOPConfig]):
    """A blend of logistic and exponential loss, gated by the margin itself; it has a local minimum left of 0."""

    name = "discopop"
    summary = "blend of logistic and exponential loss that a language model proposed"
    paper = Paper(
        "Discovering Preference Optimization Algorithms with and for Large Language Models",
        "https://arxiv.org/abs/2406.08414",
        2024,
    )
    equation = (
        "L = mean over pairs of (1 - g) softplus(-z) + g e^-z,  z = beta (R_w - R_l),  g = sigmoid(z/tau),  "
        "R = log pi(y|x) - log ref(y|x)"
    )
    data = "pairs"
    needs = Needs(reference=True)
    Config = DiscoPOPConfig
    metrics = PAIR_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    aliases = {"discopop_tau": "tau"}
    accepts = {"loss_type": "discopop"}
    golden = {"discopop": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logratios = policy.sum() - reference.sum()
        chosen, rejected = batch.pairs(logratios)
        losses = discopop_loss(chosen - rejected, self.config.beta, self.config.tau)
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, self.config.beta * logratios, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float:
        return (math.log(2.0) + 1.0) / 2.0
