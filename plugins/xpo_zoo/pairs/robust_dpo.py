"""Robust DPO: preference optimisation with noisy labels (Chowdhury et al. 2024, arXiv 2403.00409)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import softplus


def robust_dpo_loss(margins: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """[(1 - e) softplus(-beta D) - e softplus(beta D)] / (1 - 2e), with e the share of labels that are wrong.

    Its expectation over labels flipped with probability e is the DPO loss of the clean labels.

    Args: (P,) margins D, the difference of the log-ratios of chosen and rejected.
    Returns: (P,) losses, unbounded below: e / (1 - 2e) is a pull that never fades.
    """
    z = beta * margins
    e = label_smoothing
    return ((1.0 - e) * softplus(-z) - e * softplus(z)) / (1.0 - 2.0 * e)


@dataclass
class RobustDPOConfig(Config):
    """Settings of robust DPO."""

    beta: float = option(0.1, "strength of the tie to the reference; higher stays closer to it (0.01 to 0.5)")
    label_smoothing: float = option(0.1, "share of labels believed to be flipped, in [0, 0.5); 0 is DPO")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(
            0 <= self.label_smoothing < 0.5, f"label_smoothing must be in [0, 0.5), not {self.label_smoothing}"
        )


class RobustDPO(Algorithm[RobustDPOConfig]):
    """What DPO would be on clean labels, estimated without bias from noisy ones; stop it early, it has no minimum."""

    name = "robust_dpo"
    summary = "unbiased estimate of the DPO loss when a share of the labels is flipped"
    paper = Paper(
        "Provably Robust DPO: Aligning Language Models with Noisy Feedback", "https://arxiv.org/abs/2403.00409", 2024
    )
    equation = (
        "L = mean over pairs of [(1 - e) softplus(-beta D) - e softplus(beta D)] / (1 - 2e),  "
        "D = R_w - R_l,  R = log pi(y|x) - log ref(y|x)"
    )
    data = "pairs"
    needs = Needs(reference=True)
    Config = RobustDPOConfig
    metrics = PAIR_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    accepts = {"loss_type": "robust"}
    golden = {"robust_dpo": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logratios = policy.sum() - reference.sum()
        chosen, rejected = batch.pairs(logratios)
        losses = robust_dpo_loss(chosen - rejected, self.config.beta, self.config.label_smoothing)
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, self.config.beta * logratios, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float:
        return math.log(2.0)
