"""Adaptive rejection preference optimisation of X-ALMA (Xu et al. 2024, arXiv 2410.03115)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import NLL, PAIR_METRICS, Algorithm, Batch, Config, Loss, Paper, Scores, Term, nll, option, rewards_of_pairs
from xpo.api.math import softplus


def rejection_penalty(chosen_average_logps: Tensor, rejected_average_logps: Tensor, c1: float, c2: float) -> Tensor:
    """min(1, c1 exp(c2 |A_w - A_l|) - 1): how much of the rejected completion counts.

    Args: two (P,) log-probabilities averaged over the tokens of a completion.
    Returns: (P,) penalties, with gradient as in the authors' code; c1 - 1 (below 0 for c1 < 1) where both are equally
        likely.
    """
    distance = c2 * (chosen_average_logps - rejected_average_logps).abs()
    # The minimum is taken of the exponent: beyond it the exponential may overflow, and 0 times infinity is NaN.
    return c1 * torch.exp(distance.clamp_max(math.log(2.0 / c1))) - 1.0


def arpo_loss(chosen_logps: Tensor, rejected_logps: Tensor, penalty: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta (log pi(y_w|x) - penalty log pi(y_l|x))); CPO where the penalty is 1.

    Args: two (P,) log-probabilities, each summed over the tokens of a completion, and (P,) penalties.
    Returns: (P,) losses.
    """
    return softplus(-beta * (chosen_logps - penalty * rejected_logps))


@dataclass
class ARPOConfig(Config):
    """Settings of ARPO."""

    beta: float = option(0.1, "scale of the difference of log-probabilities")
    nll_weight: float = option(1.0, "weight of the NLL on the chosen completions")
    nll: str = option("token", "NLL: the mean over the 'token's of a step, or over 'sequence's of their mean or 'sum'")
    c1: float = option(0.9, "penalty of two equally likely completions, plus 1")
    c2: float = option(0.4, "how fast the penalty grows with the difference of average log-probabilities")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.nll_weight >= 0, f"nll_weight must not be negative, not {self.nll_weight}")
        self.require(self.nll in NLL, f"nll must be one of {', '.join(NLL)}, not {self.nll!r}")
        self.require(self.c1 > 0, f"c1 must be positive, not {self.c1}")
        self.require(self.c2 >= 0, f"c2 must not be negative, not {self.c2}")


class ARPO(Algorithm[ARPOConfig]):
    """CPO that spares a rejected completion which is nearly as likely as the chosen one."""

    name = "arpo"
    summary = "CPO whose pull on the rejected completion fades where both are about equally likely"
    paper = Paper("X-ALMA: Plug & Play Modules and Adaptive Rejection", "https://arxiv.org/abs/2410.03115", 2024)
    equation = (
        "L = mean over pairs of -log sigmoid(beta (S_w - p S_l)) + nll_weight NLL(y_w),  "
        "p = min(1, c1 exp(c2 |A_w - A_l|) - 1),  S a sum and A an average over tokens"
    )
    data = "pairs"
    Config = ARPOConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean beta S of the chosen completions",
        "rewards/rejected": "mean beta S of the rejected completions, before the penalty",
        "penalty": "mean share p of the rejected log-probability that counts, at most 1",
        "nll_loss": "NLL of the chosen completions, averaged as the setting nll says",
    }
    training = {"learning_rate": 1e-5}
    lora_training = {"learning_rate": 1e-4}
    aliases = {"cpo_alpha": "nll_weight", "relax_cofficient_1": "c1", "relax_cofficient_2": "c2"}
    golden = {"arpo": {"alpha": "nll_weight"}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        config, logps = self.config, policy.sum()
        penalty = rejection_penalty(*batch.pairs(policy.mean()), config.c1, config.c2)
        losses = arpo_loss(*batch.pairs(logps), penalty, config.beta)
        term, items = nll(batch, policy, "chosen", weight=config.nll_weight, per=config.nll)
        metrics = {**rewards_of_pairs(batch, config.beta * logps, logps), "penalty": penalty, "nll_loss": items}
        return Loss([Term(losses, "pair"), term], metrics)
