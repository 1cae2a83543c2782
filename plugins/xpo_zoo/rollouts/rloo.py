"""REINFORCE leave-one-out (Ahmadian et al. 2024, arXiv 2402.14740)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option
from xpo.api.math import clipped_surrogate, leave_one_out


def rloo_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, epsilon: float = 0.2, epsilon_high: float = 0.2
) -> Tensor:
    """max(-A ratio, -A clip(ratio, 1 - epsilon, 1 + epsilon_high)) with the ratio of whole sequences.

    Args: three (N,): log-probabilities summed over tokens now and when sampled, and advantages without gradient.
    Returns: (N,) losses. On the policy that sampled, the ratio is 1 and the gradient is that of -A log pi(y|x).
    """
    return clipped_surrogate(torch.exp(logps - old_logps), advantages, epsilon, epsilon_high)


@dataclass
class RLOOConfig(Config):
    """Settings of RLOO."""

    beta: float = option(0.05, "weight of the KL to the reference, taken off the reward; 0 needs no reference")
    epsilon: float = option(0.2, "the ratio may fall to 1 - epsilon before it is clipped")
    epsilon_high: float | None = option(
        None, "the ratio may rise to 1 + epsilon_high; the same as epsilon if not given"
    )
    reward_clip_range: tuple[float, float] | None = option(
        None, "lowest and highest reward, clipped before the KL is taken off"
    )
    normalize_advantages: bool = option(False, "give the advantages of a step mean 0 and deviation 1")

    def __post_init__(self) -> None:
        self.require(self.beta >= 0, f"beta must not be negative, not {self.beta}")
        self.require(self.epsilon > 0, f"epsilon must be positive, not {self.epsilon}")
        self.require(
            self.reward_clip_range is None or self.reward_clip_range[0] < self.reward_clip_range[1],
            f"reward_clip_range must be a lower and a higher number, not {self.reward_clip_range}",
        )


class RLOO(Algorithm[RLOOConfig]):
    """The whole completion is one action; the other samples of the prompt are its baseline."""

    name = "rloo"
    summary = "policy gradient with the other samples of the prompt as the baseline"
    paper = Paper("Back to Basics: Revisiting REINFORCE Style Optimization", "https://arxiv.org/abs/2402.14740", 2024)
    equation = (
        "L = mean of max(-A rho, -A clip(rho)),  rho = pi(y|x) / pi_old(y|x),  "
        "A_i = r_i - mean of r_j over j != i,  r = reward - beta (log pi_old(y|x) - log ref(y|x))"
    )
    data = "rollouts"
    needs = Needs(reference=True, samples=4)
    Config = RLOOConfig
    metrics = {
        "kl": "mean log-ratio of the sampled completions to the reference, summed over tokens",
        "ratio": "mean sequence ratio; 1 on the policy that sampled",
        "clip_fraction": "share of sequences whose ratio was clipped",
        "logps": "mean log-probability of the sampled completions",
    }
    training = {"learning_rate": 1e-6}
    lora_training = {"learning_rate": 1e-5}
    aliases = {"epsilon_low": "epsilon"}
    golden = {
        "rloo": {"eps_low": "epsilon", "eps_high": "epsilon_high"},
        "rloo_advantages": {"normalize": "normalize_advantages", "reward_clip": "reward_clip_range"},
    }

    def __init__(self, config: RLOOConfig | None = None) -> None:
        super().__init__(config)
        self.needs = Needs(reference=self.config.beta > 0, samples=4)

    def experience(self, batch: Batch, policy: Scores, reference: Scores | None) -> Mapping[str, Tensor]:
        config = self.config
        kl = torch.zeros_like(batch.scores) if reference is None else policy.sum() - reference.sum()
        rewards = batch.scores if config.reward_clip_range is None else batch.scores.clamp(*config.reward_clip_range)
        penalised = rewards - config.beta * kl
        advantages = batch.unlists(leave_one_out(batch.lists(penalised)))
        if config.normalize_advantages:
            mean, deviation = batch.global_moments(advantages)
            advantages = (advantages - mean) / (deviation + 1e-4)
        return {"advantages": advantages, "penalised_rewards": penalised, "kl": kl}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        logps, advantages = policy.sum(), batch.columns["advantages"]
        # Without a record of the sampling policy this is its own batch: the ratio is 1 and only its gradient matters.
        old_logps = batch.columns["old_logps"].sum(-1) if "old_logps" in batch.columns else logps.detach()
        high = self.config.epsilon if self.config.epsilon_high is None else self.config.epsilon_high
        losses = rloo_loss(logps, old_logps, advantages, self.config.epsilon, high)
        ratio = torch.exp(logps - old_logps).detach()
        clipped = ((ratio < 1 - self.config.epsilon) & (advantages < 0)) | ((ratio > 1 + high) & (advantages > 0))
        metrics = {"ratio": ratio, "clip_fraction": clipped.to(ratio.dtype), "logps": logps.detach()}
        if "kl" in batch.columns:
            metrics["kl"] = batch.columns["kl"]
        return Loss([Term(losses, "completion")], metrics)
