"""Weighted preference optimisation (Zhou et al. 2024, arXiv 2406.11827)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import softplus

#: Alignment -> what is taken off the log-probability of a token: a statistic of (m, V) log-probabilities.
BASELINES: dict[str, Callable[[Tensor], Tensor] | None] = {
    "sampled": lambda logps: torch.logsumexp(2.0 * logps, -1),  # log of the expected probability of a sampled token
    "greedy": lambda logps: logps.amax(-1),
    "none": None,
}


def log_weights(policy: Scores, alignment: str = "sampled") -> Tensor:
    """(1/n) sum_t [log pi(y_t|s_t) - baseline(s_t)]: log of how on-policy each completion is.

    Args: scores with distributions, unless the alignment is ``none``.
    Returns: (C,) values without gradient: about 0 for what the policy would itself have said. Means over tokens: of
        sums, every weight but that of the shortest completions would be 0.
    """
    policy = policy.detach()
    baseline = BASELINES[alignment]
    if baseline is None:
        return policy.mean()
    return policy.mean() - policy.over_vocabulary(baseline).sum(-1) / policy.lengths


def wpo_loss(margins: Tensor, weights: Tensor) -> Tensor:
    """-w log sigmoid(margin): DPO with a weight for every pair.

    Args: (P,) margins beta (R_w - R_l) and (P,) weights without gradient.
    Returns: (P,) losses.
    """
    return weights * softplus(-margins)


@dataclass
class WPOConfig(Config):
    """Settings of WPO."""

    beta: float = option(0.01, "strength of the tie to the reference")
    alignment: str = option(
        "sampled", "what a weight of 1 means: as likely as a 'sampled' token, as the 'greedy' one, or 'none': certain"
    )
    clamp: bool = option(True, "keep the weight of a pair at 1 or below")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(
            self.alignment in BASELINES, f"alignment must be one of {', '.join(BASELINES)}, not {self.alignment!r}"
        )


class WPO(Algorithm[WPOConfig]):
    """DPO on pairs as if the policy had written them: each counts by how likely the policy is to do so."""

    name = "wpo"
    summary = "DPO with pairs weighted by how likely the policy is to write them"
    paper = Paper("WPO: Enhancing RLHF with Weighted Preference Optimization", "https://arxiv.org/abs/2406.11827", 2024)
    equation = (
        "L = mean over pairs of -sg[min(1, w(y_w) w(y_l))] log sigmoid(beta (R_w - R_l)),  "
        "w(y) = exp(mean over tokens of log pi(y_t|s_t) - log sum_v pi(v|s_t)^2),  R = log pi(y|x) - log ref(y|x)"
    )
    data = "pairs"
    needs = Needs(reference=True, vocabulary=True)
    Config = WPOConfig
    metrics = {**PAIR_METRICS, "weights": "mean weight of the pairs; near 0 where none is what the policy would write"}
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    accepts = {"use_weighting": True, "loss_type": "sigmoid"}
    golden = {"wpo": {}}

    def __init__(self, config: WPOConfig | None = None) -> None:
        super().__init__(config)
        self.needs = Needs(reference=True, vocabulary=self.config.alignment != "none")

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        rewards = self.config.beta * (policy.sum() - reference.sum())
        chosen, rejected = batch.pairs(rewards)
        of_chosen, of_rejected = batch.pairs(log_weights(policy, self.config.alignment))
        log_weight = of_chosen + of_rejected
        weights = torch.exp(log_weight.clamp_max(0.0) if self.config.clamp else log_weight)
        losses = wpo_loss(chosen - rejected, weights)
        return Loss([Term(losses, "pair")], {**rewards_of_pairs(batch, rewards, policy.sum()), "weights": weights})
