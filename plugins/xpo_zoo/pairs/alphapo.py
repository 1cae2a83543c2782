"""AlphaPO: the shape of the reward matters (Gupta et al. 2025, arXiv 2501.03884)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import bounded, softplus


def alphapo_reward(average_logps: Tensor, beta: float, alpha: float) -> Tensor:
    """beta (1 - exp(-alpha A)) / alpha; beta A in the limit of alpha = 0, which is SimPO.

    Args: (C,) log-probabilities A averaged over the tokens of a completion.
    Returns: (C,) rewards. For alpha > 0 unlikely completions fall off exponentially, for alpha < 0 they level out.
    """
    if alpha == 0:
        return beta * average_logps
    return -beta / alpha * torch.expm1(bounded(-alpha * average_logps))


def alphapo_loss(chosen_rewards: Tensor, rejected_rewards: Tensor, gamma: float) -> Tensor:
    """-log sigmoid(r_w - r_l - gamma), the objective of the paper.

    Args: two (P,) rewards; gamma is in their units.
    Returns: (P,) losses.
    """
    return softplus(gamma - (chosen_rewards - rejected_rewards))


@dataclass
class AlphaPOConfig(Config):
    """Settings of AlphaPO."""

    beta: float = option(2.5, "scale of the reward (2 to 10)")
    gamma: float = option(0.1, "target margin, in the units of the reward")
    alpha: float = option(0.25, "shape of the reward: 0 is SimPO, above 0 punishes unlikely completions harder")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")


class AlphaPO(Algorithm[AlphaPOConfig]):
    """SimPO whose reward is bent: concave or convex in the average log-probability."""

    name = "alphapo"
    summary = "SimPO with a reward that is bent by alpha"
    paper = Paper("AlphaPO: Reward Shape Matters for LLM Alignment", "https://arxiv.org/abs/2501.03884", 2025)
    equation = (
        "L = mean over pairs of -log sigmoid(r(A_w) - r(A_l) - gamma),  r(A) = beta (1 - exp(-alpha A)) / alpha,  "
        "A = log pi(y|x) / |y|"
    )
    data = "pairs"
    Config = AlphaPOConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean bent reward r of the chosen completions",
        "rewards/rejected": "mean bent reward r of the rejected completions",
        "logps/chosen": "mean over pairs of the average log-probability a token of the chosen completion",
        "logps/rejected": "the same of the rejected completion",
    }
    training = {"learning_rate": 7e-7}
    lora_training = {"learning_rate": 7e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    aliases = {"simpo_gamma": "gamma"}
    accepts = {"loss_type": "alphapo", "cpo_alpha": 0.0}
    golden = {"alphapo": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        average = policy.mean()
        rewards = alphapo_reward(average, self.config.beta, self.config.alpha)
        losses = alphapo_loss(*batch.pairs(rewards), self.config.gamma)
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, rewards, average))
