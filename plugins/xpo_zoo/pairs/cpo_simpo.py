"""CPO-SimPO (Xu 2024, github.com/fe1ixxu/CPO_SIMPO): SimPO with the behaviour cloning of CPO."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xpo import NLL, PAIR_METRICS, Algorithm, Batch, Config, Loss, Paper, Scores, Term, nll, option, rewards_of_pairs
from xpo.api.math import smoothed


def cpo_simpo_loss(
    chosen_average_logps: Tensor,
    rejected_average_logps: Tensor,
    beta: float,
    gamma: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log sigmoid(beta (A_w - A_l) - gamma), the preference term of the repository's objective.

    Args: two (P,) log-probabilities averaged over the tokens of a completion; gamma is in the units of beta A.
    Returns: (P,) losses.
    """
    return smoothed(beta * (chosen_average_logps - rejected_average_logps) - gamma, label_smoothing)


@dataclass
class CPOSimPOConfig(Config):
    """Settings of CPO-SimPO."""

    beta: float = option(2.0, "scale of the reward (2 to 10)")
    gamma: float = option(0.5, "target margin, in the units of the reward")
    nll_weight: float = option(1.0, "weight of the NLL on the chosen completions (0.05 to 1)")
    nll: str = option("token", "NLL: the mean over the 'token's of a step, or over 'sequence's of their mean or 'sum'")
    label_smoothing: float = option(0.0, "probability that a label is flipped, in [0, 0.5)")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.nll_weight >= 0, f"nll_weight must not be negative, not {self.nll_weight}")
        self.require(self.nll in NLL, f"nll must be one of {', '.join(NLL)}, not {self.nll!r}")
        self.require(
            0 <= self.label_smoothing < 0.5, f"label_smoothing must be in [0, 0.5), not {self.label_smoothing}"
        )


class CPOSimPO(Algorithm[CPOSimPOConfig]):
    """SimPO that also imitates the winner. With nll_weight 0 it is SimPO; nothing adds an NLL to `simpo` unasked."""

    name = "cpo_simpo"
    summary = "SimPO with an added NLL on the chosen completion"
    paper = Paper("CPO-SimPO, the joint use of CPO and SimPO", "https://github.com/fe1ixxu/CPO_SIMPO", 2024)
    equation = (
        "L = mean over pairs of -log sigmoid(beta (A_w - A_l) - gamma) + nll_weight NLL(y_w),  A = log pi(y|x) / |y|"
    )
    data = "pairs"
    Config = CPOSimPOConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean beta A of the chosen completions",
        "rewards/rejected": "mean beta A of the rejected completions",
        "logps/chosen": "mean over pairs of the average log-probability a token of the chosen completion",
        "logps/rejected": "the same of the rejected completion",
        "nll_loss": "NLL of the chosen completions, averaged as the setting nll says",
    }
    training = {"learning_rate": 1e-6}
    lora_training = {"learning_rate": 1e-5}
    raises = ("chosen",)
    lowers = ("rejected",)
    aliases = {"simpo_gamma": "gamma", "cpo_alpha": "nll_weight"}
    accepts = {"loss_type": "simpo"}
    golden = {"cpo_simpo": {"alpha": "nll_weight", "prefer": "loss/preference"}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        config, average = self.config, policy.mean()
        losses = cpo_simpo_loss(*batch.pairs(average), config.beta, config.gamma, config.label_smoothing)
        term, items = nll(batch, policy, "chosen", weight=config.nll_weight, per=config.nll)
        metrics = {**rewards_of_pairs(batch, config.beta * average, average), "nll_loss": items}
        return Loss([Term(losses, "pair"), term], metrics)
