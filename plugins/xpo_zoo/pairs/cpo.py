"""Contrastive preference optimisation (Xu et al. 2024, arXiv 2401.08417)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xpo import NLL, PAIR_METRICS, Algorithm, Batch, Config, Loss, Paper, Scores, Term, nll, option, rewards_of_pairs
from xpo.api.math import smoothed


def cpo_loss(chosen_logps: Tensor, rejected_logps: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(beta (log pi(y_w|x) - log pi(y_l|x))), L_prefer of the paper: DPO with a uniform reference.

    Args: two (P,) log-probabilities, each summed over the tokens of a completion.
    Returns: (P,) losses. Sums follow length, so pairs of unequal lengths may start far from 0 and saturated.
    """
    return smoothed(beta * (chosen_logps - rejected_logps), label_smoothing)


@dataclass
class CPOConfig(Config):
    """Settings of CPO."""

    beta: float = option(0.1, "scale of the difference of log-probabilities")
    nll_weight: float = option(1.0, "weight of the NLL on the chosen completions")
    nll: str = option("token", "NLL: the mean over the 'token's of a step, or over 'sequence's of their mean or 'sum'")
    label_smoothing: float = option(0.0, "probability that a label is flipped, in [0, 0.5)")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.nll_weight >= 0, f"nll_weight must not be negative, not {self.nll_weight}")
        self.require(self.nll in NLL, f"nll must be one of {', '.join(NLL)}, not {self.nll!r}")
        self.require(
            0 <= self.label_smoothing < 0.5, f"label_smoothing must be in [0, 0.5), not {self.label_smoothing}"
        )


class CPO(Algorithm[CPOConfig]):
    """DPO with a uniform reference, and behaviour cloning of the winner."""

    name = "cpo"
    summary = "DPO with a uniform reference, plus an NLL on the chosen completion"
    paper = Paper("Contrastive Preference Optimization", "https://arxiv.org/abs/2401.08417", 2024)
    equation = (
        "L = mean over pairs of -log sigmoid(beta (S_w - S_l)) + nll_weight NLL(y_w),  "
        "S = log pi(y|x), a sum over tokens"
    )
    data = "pairs"
    Config = CPOConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean beta S of the chosen completions",
        "rewards/rejected": "mean beta S of the rejected completions",
        "nll_loss": "NLL of the chosen completions, averaged as the setting nll says",
    }
    training = {"learning_rate": 1e-5}
    lora_training = {"learning_rate": 1e-4}
    raises = ("chosen",)
    lowers = ("rejected",)
    aliases = {"cpo_alpha": "nll_weight"}
    accepts = {"loss_type": "sigmoid"}
    golden = {"cpo": {"alpha": "nll_weight", "prefer": "loss/preference"}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        config, logps = self.config, policy.sum()
        losses = cpo_loss(*batch.pairs(logps), config.beta, config.label_smoothing)
        term, items = nll(batch, policy, "chosen", weight=config.nll_weight, per=config.nll)
        metrics = {**rewards_of_pairs(batch, config.beta * logps, logps), "nll_loss": items}
        return Loss([Term(losses, "pair"), term], metrics)
