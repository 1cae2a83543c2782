"""Efficient exact optimisation on pairs (Ji et al. 2024, arXiv 2402.00856)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import logsigmoid


def exo_loss(margins: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """KL(q || p) with q = (sigmoid(z), sigmoid(-z)), z = beta D, and p = (1 - e, e).

    Args: (P,) margins D, the difference of the log-ratios of chosen and rejected.
    Returns: (P,) losses: the reverse KL between what the policy and what the label says of the two completions. DPO is
        the forward KL at e = 0, where this one is infinite.
    """
    z = beta * margins
    e = label_smoothing
    preferred = torch.sigmoid(z) * (logsigmoid(z) - math.log1p(-e))
    other = torch.sigmoid(-z) * (logsigmoid(-z) - math.log(e))
    return preferred + other


@dataclass
class EXOConfig(Config):
    """Settings of EXO."""

    beta: float = option(0.1, "strength of the tie to the reference; higher stays closer to it (0.1 to 0.5)")
    label_smoothing: float = option(
        1e-3, "probability that the label is wrong, in (0, 0.5): it bounds the loss, and the margin by log((1 - e) / e)"
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(
            0 < self.label_smoothing < 0.5,
            f"label_smoothing must be in (0, 0.5), not {self.label_smoothing}; at 0 the loss is infinite",
        )


class EXO(Algorithm[EXOConfig]):
    """The direction of the KL that reinforcement learning has: it seeks the mode rather than cover all of the data."""

    name = "exo"
    summary = "reverse KL from what the policy says of a pair to its smoothed label"
    paper = Paper(
        "Towards Efficient Exact Optimization of Language Model Alignment", "https://arxiv.org/abs/2402.00856", 2024
    )
    equation = (
        "L = mean over pairs of q log(q/(1-e)) + (1-q) log((1-q)/e),  q = sigmoid(beta (R_w - R_l)),  "
        "R = log pi(y|x) - log ref(y|x)"
    )
    data = "pairs"
    needs = Needs(reference=True)
    Config = EXOConfig
    metrics = PAIR_METRICS
    training = {"learning_rate": 1e-6}
    lora_training = {"learning_rate": 1e-5}
    accepts = {"loss_type": "exo_pair"}
    golden = {"exo_pref": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logratios = policy.sum() - reference.sum()
        chosen, rejected = batch.pairs(logratios)
        losses = exo_loss(chosen - rejected, self.config.beta, self.config.label_smoothing)
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, self.config.beta * logratios, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float:
        e = self.config.label_smoothing
        return (math.log(0.5 / (1.0 - e)) + math.log(0.5 / e)) / 2.0
