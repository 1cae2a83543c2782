"""Self-play preference optimisation, a minimaximalist approach (Swamy et al. 2024, arXiv 2401.04056).

Not SPPO (Wu et al. 2024), which fits log-ratios to win rates by least squares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option
from xpo.api.math import bounded
from xpo_zoo.rollouts.reinforce import reinforce_loss


def spo_rewards(preference: Sequence[Sequence[Sequence[float]]]) -> Mapping[str, list[list[float]]]:
    """Rewards of K samples of each prompt: how often each is preferred to the K - 1 others, on average.

    Args: for every prompt a K x K table of P(i > j), K >= 2, whose diagonal is not read.
    Returns: ``rewards``, K of every prompt; they average 1/2 where P(i > j) + P(j > i) = 1.
    """
    return {
        "rewards": [
            [sum(wins[:own] + wins[own + 1 :]) / (len(wins) - 1) for own, wins in enumerate(map(list, table))]
            for table in preference
        ]
    }


@dataclass
class SPOConfig(Config):
    """Settings of SPO."""

    beta: float = option(0.05, "weight of the KL to the reference, taken off the reward; 0 needs no reference")

    def __post_init__(self) -> None:
        self.require(self.beta >= 0, f"beta must not be negative, not {self.beta}")


class SPO(Algorithm[SPOConfig]):
    """The other samples of the prompt are the opponents: what is preferred to them is made more likely.

    Preferences may be intransitive, since no reward is fitted to them. The baseline 1/2 is what a sample of equals
    gets. Here the optimiser is REINFORCE; ``rloo``, ``grpo`` and ``ppo`` with a ``--judge`` get the same rewards.
    """

    name = "spo"
    summary = "policy gradient on how often a sample is preferred to the other samples of the prompt"
    paper = Paper(
        "A Minimaximalist Approach to Reinforcement Learning from Human Feedback",
        "https://arxiv.org/abs/2401.04056",
        2024,
    )
    equation = (
        "L = mean of -(P_i - 1/2 - beta (log pi_old(y_i|x) - log ref(y_i|x))) sg[w] log pi(y_i|x),  "
        "P_i = mean of P(y_i > y_j|x) over j != i,  w = min(1, pi(y|x) / pi_old(y|x))"
    )
    data = "rollouts"
    needs = Needs(reference=True, samples=4, wins="others")
    Config = SPOConfig
    metrics = {
        "kl": "mean log-ratio of the sampled completions to the reference, summed over tokens",
        "rewards/spread": "mean distance of the win rates from 1/2; near 0 the samples are all as good as each other",
        "ratio": "mean sequence ratio; 1 on the policy that sampled",
        "logps": "mean log-probability of the sampled completions",
    }
    training = {"learning_rate": 1e-6}
    lora_training = {"learning_rate": 1e-5}
    golden = {"spo": {}}
    functions = {"spo_rewards": spo_rewards}

    def __init__(self, config: SPOConfig | None = None) -> None:
        super().__init__(config)
        self.needs = Needs(reference=self.config.beta > 0, samples=4, wins="others")

    def experience(self, batch: Batch, policy: Scores, reference: Scores | None) -> Mapping[str, Tensor]:
        if reference is None:
            return {"advantages": batch.scores - 0.5}
        kl = policy.sum() - reference.sum()
        return {"advantages": batch.scores - 0.5 - self.config.beta * kl, "kl": kl}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        logps = policy.sum()
        # Without a record of the sampling policy this is its own batch: the ratio is 1.
        old_logps = batch.columns["old_logps"].sum(-1) if "old_logps" in batch.columns else logps
        ratio = torch.exp(bounded(logps - old_logps)).detach()
        losses = reinforce_loss(logps, batch.columns["advantages"], ratio.clamp_max(1.0))
        metrics = {"rewards/spread": (batch.scores - 0.5).abs(), "ratio": ratio, "logps": logps.detach()}
        if "kl" in batch.columns:
            metrics["kl"] = batch.columns["kl"]
        return Loss([Term(losses, "completion")], metrics)
