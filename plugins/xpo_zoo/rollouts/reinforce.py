"""REINFORCE (Williams 1992) with a moving average of the reward as its baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option
from xpo.api.math import bounded


def reinforce_loss(logps: Tensor, advantages: Tensor, weights: Tensor | float = 1.0) -> Tensor:
    """-A sg[w] log pi(y|x).

    Args: (N,) log-probabilities summed over tokens, (N,) advantages without gradient, and (N,) weights where another
        policy sampled: its ratios pi / pi_old, of which those above 1 would let a few sequences decide.
    Returns: (N,) losses.
    """
    return -advantages * weights * logps


@dataclass
class ReinforceConfig(Config):
    """Settings of REINFORCE."""

    beta: float = option(0.05, "weight of the KL to the reference, taken off the reward; 0 needs no reference")
    baseline_momentum: float = option(
        0.9, "share of the baseline that stays at every step, in [0, 1); the rest is the mean reward of the step"
    )

    def __post_init__(self) -> None:
        self.require(self.beta >= 0, f"beta must not be negative, not {self.beta}")
        self.require(
            0 <= self.baseline_momentum < 1, f"baseline_momentum must be in [0, 1), not {self.baseline_momentum}"
        )


class Reinforce(Algorithm[ReinforceConfig]):
    """The whole completion is one action; what earlier steps brought on average is its baseline.

    The baseline of a step is made of the steps before it, so it does not depend on the samples it is taken off. The
    first step, which has none before it, takes off its own mean.
    """

    name = "reinforce"
    summary = "policy gradient with a moving average of the reward as the baseline"
    paper = Paper(
        "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning",
        "https://doi.org/10.1007/BF00992696",
        1992,
    )
    equation = (
        "L = mean of -(r - b) sg[w] log pi(y|x),  r = reward - beta (log pi_old(y|x) - log ref(y|x)),  "
        "b = moving average of r,  w = min(1, pi(y|x) / pi_old(y|x))"
    )
    data = "rollouts"
    needs = Needs(reference=True, samples=4)
    Config = ReinforceConfig
    metrics = {
        "kl": "mean log-ratio of the sampled completions to the reference, summed over tokens",
        "baseline": "what was taken off the reward, KL included, to make the advantage",
        "ratio": "mean sequence ratio; 1 on the policy that sampled",
        "logps": "mean log-probability of the sampled completions",
    }
    training = {"learning_rate": 1e-6}
    lora_training = {"learning_rate": 1e-5}
    golden = {"reinforce": {}}

    def __init__(self, config: ReinforceConfig | None = None) -> None:
        super().__init__(config)
        self.needs = Needs(reference=self.config.beta > 0, samples=4)
        self.baseline: float | None = None

    def experience(self, batch: Batch, policy: Scores, reference: Scores | None) -> Mapping[str, Tensor]:
        columns = {} if reference is None else {"kl": policy.sum() - reference.sum()}
        rewards = batch.scores - self.config.beta * columns["kl"] if columns else batch.scores
        mean = float(batch.global_mean(rewards))
        baseline = mean if self.baseline is None else self.baseline
        if torch.is_grad_enabled():
            momentum = self.config.baseline_momentum
            self.baseline = momentum * baseline + (1.0 - momentum) * mean
        return {**columns, "advantages": rewards - baseline, "baseline": torch.full_like(rewards, baseline)}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        logps = policy.sum()
        # Without a record of the sampling policy this is its own batch: the ratio is 1.
        old_logps = batch.columns["old_logps"].sum(-1) if "old_logps" in batch.columns else logps
        ratio = torch.exp(bounded(logps - old_logps)).detach()
        metrics = {"ratio": ratio, "logps": logps.detach()}
        metrics |= {name: values for name, values in batch.columns.items() if name in ("kl", "baseline")}
        losses = reinforce_loss(logps, batch.columns["advantages"], ratio.clamp_max(1.0))
        return Loss([Term(losses, "completion")], metrics)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.baseline is None else {"baseline": self.baseline}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.baseline = float(state["baseline"]) if "baseline" in state else None
