"""Alignment by optimal transport on pairs (Melnyk et al. 2024, arXiv 2406.05882)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import smoothed


def aot_loss(policy_margins: Tensor, reference_margins: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(beta (u_(i) - v_(i))), u_(i) the i-th smallest margin of the policy, v_(i) of the reference.

    Args: two (P,) margins, the difference of the log-probabilities of chosen and rejected, summed over tokens.
    Returns: (P,) losses of ranks, not of pairs: the i-th says whether the policy's i-th smallest margin exceeds the
        reference's.
    """
    return smoothed(beta * (policy_margins.sort().values - reference_margins.sort().values), label_smoothing)


@dataclass
class AOTConfig(Config):
    """Settings of AOT."""

    beta: float = option(0.01, "strength of the tie to the reference; higher stays closer to it (0.01 to 0.1)")
    label_smoothing: float = option(0.0, "probability that a label is flipped, in [0, 0.5)")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(
            0 <= self.label_smoothing < 0.5, f"label_smoothing must be in [0, 0.5), not {self.label_smoothing}"
        )


class AOT(Algorithm[AOTConfig]):
    """The margins of the policy dominate those of the reference as a distribution, not pair by pair.

    Margins are sorted within the micro-batch of each process, so results depend on its size: larger is better.
    """

    name = "aot"
    summary = "logistic loss on sorted margins: the policy's distribution of margins above the reference's"
    paper = Paper(
        "Distributional Preference Alignment of LLMs via Optimal Transport", "https://arxiv.org/abs/2406.05882", 2024
    )
    equation = (
        "L = mean over ranks i of a micro-batch of -log sigmoid(beta (u_(i) - v_(i))),  "
        "u = log pi(w|x) - log pi(l|x),  v = log ref(w|x) - log ref(l|x),  each sorted"
    )
    data = "pairs"
    needs = Needs(reference=True, least=2)
    Config = AOTConfig
    metrics = PAIR_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    accepts = {"loss_type": ("aot", "aot_pair")}
    golden = {"aot_paired": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        own, theirs = (chosen - rejected for chosen, rejected in map(batch.pairs, (policy.sum(), reference.sum())))
        losses = aot_loss(own, theirs, self.config.beta, self.config.label_smoothing)
        rewards = self.config.beta * (policy.sum() - reference.sum())
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, rewards, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float:
        return math.log(2.0)
