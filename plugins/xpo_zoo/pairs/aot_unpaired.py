"""Alignment by optimal transport without pairing (Melnyk et al. 2024, arXiv 2406.05882)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import smoothed


def aot_unpaired_loss(
    chosen_logratios: Tensor, rejected_logratios: Tensor, beta: float, label_smoothing: float = 0.0
) -> Tensor:
    """-log sigmoid(beta (R_w(i) - R_l(i))), R_w(i) the i-th smallest chosen log-ratio, R_l(i) the i-th rejected one.

    Args: two (P,) log-ratios, summed over tokens.
    Returns: (P,) losses of ranks, not of pairs.
    """
    return smoothed(beta * (chosen_logratios.sort().values - rejected_logratios.sort().values), label_smoothing)


@dataclass
class AOTUnpairedConfig(Config):
    """Settings of unpaired AOT."""

    beta: float = option(0.01, "strength of the tie to the reference; higher stays closer to it (0.01 to 0.1)")
    label_smoothing: float = option(0.0, "probability that a label is flipped, in [0, 0.5)")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(
            0 <= self.label_smoothing < 0.5, f"label_smoothing must be in [0, 0.5), not {self.label_smoothing}"
        )


class AOTUnpaired(Algorithm[AOTUnpairedConfig]):
    """The rewards of chosen completions dominate those of rejected ones as a distribution; who met whom is ignored.

    Log-ratios are sorted within the micro-batch of each process, so results depend on its size: larger is better.
    """

    name = "aot_unpaired"
    summary = "logistic loss on sorted rewards: those of chosen completions above those of rejected ones"
    paper = Paper(
        "Distributional Preference Alignment of LLMs via Optimal Transport", "https://arxiv.org/abs/2406.05882", 2024
    )
    equation = (
        "L = mean over ranks i of a micro-batch of -log sigmoid(beta (R_w(i) - R_l(i))),  "
        "R = log pi(y|x) - log ref(y|x),  chosen and rejected each sorted"
    )
    data = "pairs"
    needs = Needs(reference=True, least=2)
    Config = AOTUnpairedConfig
    metrics = PAIR_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    accepts = {"loss_type": "aot_unpaired"}
    golden = {"aot_unpaired": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logratios = policy.sum() - reference.sum()
        losses = aot_unpaired_loss(*batch.pairs(logratios), self.config.beta, self.config.label_smoothing)
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, self.config.beta * logratios, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float:
        return math.log(2.0)
