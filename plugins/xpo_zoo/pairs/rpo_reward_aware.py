"""Reward-aware preference optimisation (Sun et al. 2025, arXiv 2502.00203), as in Nemotron-4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import logsigmoid


def bernoulli_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL between two coins, given their logits."""
    return torch.sigmoid(p) * (logsigmoid(p) - logsigmoid(q)) + torch.sigmoid(-p) * (logsigmoid(-p) - logsigmoid(-q))


#: How far the policy's margin z is from the target t.
DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": lambda z, t: 0.5 * (z - t).square(),
    "bwd_kl": bernoulli_kl,
    "fwd_kl": lambda z, t: bernoulli_kl(t, z),
}


def reward_aware_loss(margins: Tensor, gaps: Tensor, beta: float, eta: float, distance: str) -> Tensor:
    """Distance between z = beta D and t = eta (s_w - s_l): (z - t)^2 / 2, KL(z || t) or KL(t || z) of sigmoids.

    Args: (P,) margins D, the difference of the log-ratios of chosen and rejected, and (P,) gaps of their scores.
    Returns: (P,) losses; 0 where the policy's margin is what the scores say.
    """
    return DISTANCES[distance](beta * margins, eta * gaps)


@dataclass
class RewardAwareConfig(Config):
    """Settings of reward-aware preference optimisation."""

    beta: float = option(0.1, "strength of the tie to the reference; higher stays closer to it (0.01 to 0.5)")
    eta: float = option(1.0, "scale of the scores: a gap of s asks for a margin of eta s / beta nats")
    distance: str = option(
        "bwd_kl",
        "what is small when margins fit: 'bwd_kl', KL from the policy's preference to the scores'; 'fwd_kl', the other "
        "way round; or 'squared'",
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.eta > 0, f"eta must be positive, not {self.eta}")
        self.require(
            self.distance in DISTANCES, f"distance must be one of {', '.join(DISTANCES)}, not {self.distance!r}"
        )


class RewardAware(Algorithm[RewardAwareConfig]):
    """The margin is fitted to the gap of the scores, so a pair that is nearly a tie stays nearly a tie."""

    name = "rpo_reward_aware"
    summary = "fits the margin of log-ratios to the gap between the scores of a pair"
    paper = Paper(
        "Reward-aware Preference Optimization: A Unified Mathematical Framework for Model Alignment",
        "https://arxiv.org/abs/2502.00203",
        2025,
    )
    equation = (
        "L = mean over pairs of d(beta (R_w - R_l), eta (s_w - s_l)),  R = log pi(y|x) - log ref(y|x),  s the scores, "
        "d a squared error or a KL of sigmoids"
    )
    data = "pairs"
    needs = Needs(reference=True, scores=True)
    Config = RewardAwareConfig
    metrics = {**PAIR_METRICS, "rewards/target": "mean eta (s_w - s_l): what rewards/margins heads for"}
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    golden = {"rpo_reward_aware": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        config = self.config
        logratios = policy.sum() - reference.sum()
        chosen, rejected = batch.pairs(logratios)
        gaps = _gaps(batch)
        losses = reward_aware_loss(chosen - rejected, gaps, config.beta, config.eta, config.distance)
        metrics = rewards_of_pairs(batch, config.beta * logratios, policy.sum())
        return Loss([Term(losses, "pair")], {**metrics, "rewards/target": config.eta * gaps})

    def value_at_reference(self, batch: Batch) -> float:
        gaps = _gaps(batch).double()
        return float(reward_aware_loss(torch.zeros_like(gaps), gaps, 1.0, self.config.eta, self.config.distance).mean())


def _gaps(batch: Batch) -> Tensor:
    """(P,) score of the chosen completion less that of the rejected."""
    chosen, rejected = batch.pairs(batch.scores)
    return chosen - rejected
