"""Simple preference optimisation (Meng et al. 2024, arXiv 2405.14734)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import smoothed


def simpo_loss(
    chosen_average_logps: Tensor,
    rejected_average_logps: Tensor,
    beta: float,
    gamma: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log sigmoid(beta (A_w - A_l) - gamma), eq. 6 of the paper.

    Args: two (P,) log-probabilities averaged over the tokens of a completion, EOS included; the margin gamma is
        absolute, in the units of the reward beta A.
    Returns: (P,) losses.
    """
    return smoothed(beta * (chosen_average_logps - rejected_average_logps) - gamma, label_smoothing)


@dataclass
class SimPOConfig(Config):
    """Settings of SimPO."""

    beta: float = option(2.5, "scale of the reward (2 to 10; far larger than the beta of methods with a reference)")
    gamma_beta_ratio: float | None = option(
        None, "target margin as a share of beta (0.1 to 0.8); 0.5 if nothing is given"
    )
    gamma: float | None = option(None, "target margin itself; give this or gamma_beta_ratio")
    label_smoothing: float = option(0.0, "probability that a label is flipped, in [0, 0.5)")
    sft_weight: float = option(0.0, "weight of an added NLL on the chosen completions, a mean over their tokens")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(
            self.gamma is None or self.gamma_beta_ratio is None, "give gamma or gamma_beta_ratio, not both of them"
        )
        self.require(
            0 <= self.label_smoothing < 0.5, f"label_smoothing must be in [0, 0.5), not {self.label_smoothing}"
        )
        self.require(self.sft_weight >= 0, f"sft_weight must not be negative, not {self.sft_weight}")

    @property
    def margin(self) -> float:
        """The target margin gamma, whichever way it was given."""
        if self.gamma is not None:
            return self.gamma
        return self.beta * (0.5 if self.gamma_beta_ratio is None else self.gamma_beta_ratio)


class SimPO(Algorithm[SimPOConfig]):
    """The average log-probability is the reward, and the winner must lead by a margin; no reference model."""

    name = "simpo"
    summary = "average log-probability as the reward, with a target margin and no reference"
    paper = Paper(
        "SimPO: Simple Preference Optimization with a Reference-Free Reward", "https://arxiv.org/abs/2405.14734", 2024
    )
    equation = "L = mean over pairs of -log sigmoid(beta (A_w - A_l) - gamma),  A = log pi(y|x) / |y|"
    data = "pairs"
    Config = SimPOConfig
    metrics = {
        **PAIR_METRICS,
        "logps/chosen": "mean over pairs of the average log-probability a token of the chosen completion",
        "logps/rejected": "the same of the rejected completion",
    }
    training = {"learning_rate": 6e-7}
    lora_training = {"learning_rate": 6e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    aliases = {"simpo_gamma": "gamma", "cpo_alpha": "sft_weight"}
    accepts = {"loss_type": "simpo"}
    golden = {"simpo": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        average = policy.mean()
        chosen, rejected = batch.pairs(average)
        config = self.config
        losses = simpo_loss(chosen, rejected, config.beta, config.margin, config.label_smoothing)
        terms = [Term(losses, "pair")]
        if config.sft_weight:
            nll = -policy.logps[batch.where("chosen")]
            terms.append(Term(nll, "token", over="chosen", weight=config.sft_weight, name="sft"))
        return Loss(terms, rewards_of_pairs(batch, config.beta * average, average))
