"""Group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300), and Dr. GRPO (Liu et al. 2025, 2503.20783).

Dr. GRPO is ``scale_rewards`` false with ``aggregation`` fixed_length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Loss, Needs, Paper, Scores, SettingError, Term, option
from xpo.api.math import bounded, clipped_surrogate, k1, k2, k3

#: How the losses of tokens become one: the mean over sequences of their means, the mean over all tokens of the step, or
#: the mean over sequences of their sum divided by a fixed length.
AGGREGATIONS = ("sequence_mean", "token_mean", "fixed_length")


def group_advantages(rewards: Tensor, scale: bool = True, epsilon: float = 1e-4) -> Tensor:
    """A_i = r_i - mean of the group, divided by the group's standard deviation + epsilon if ``scale``.

    Args: (G, K) rewards of the K samples of each prompt, K >= 2; the deviation has n - 1 in its divisor.
    Returns: (G, K) advantages.
    """
    if rewards.shape[-1] < 2:
        raise SettingError("advantages within a group need at least two samples of every prompt: --num_generations")
    centred = rewards - rewards.mean(-1, keepdim=True)
    return centred / (rewards.std(-1, keepdim=True) + epsilon) if scale else centred


def _kl_estimators(logps: Sequence[Any], ref_logps: Sequence[Any]) -> dict[str, Any]:
    both = [[torch.tensor(one, dtype=torch.float64) for one in pair] for pair in zip(logps, ref_logps, strict=True)]
    return {
        name: [estimate(*pair).tolist() for pair in both] for name, estimate in (("k1", k1), ("k2", k2), ("k3", k3))
    }


@dataclass
class GRPOConfig(Config):
    """Settings of GRPO."""

    beta: float = option(0.04, "weight of the KL to the reference in the loss; 0 needs no reference")
    epsilon: float = option(0.2, "the ratio of a token may fall to 1 - epsilon before it is clipped")
    epsilon_high: float | None = option(
        None, "the ratio may rise to 1 + epsilon_high; the same as epsilon if not given (DAPO: 0.28)"
    )
    aggregation: str = option(
        "sequence_mean",
        "of token losses: sequence_mean, over sequences of their means; token_mean, over all tokens of the step; "
        "fixed_length, over sequences of their sum divided by aggregation_length (Dr. GRPO)",
    )
    aggregation_length: int = option(256, "what fixed_length divides by, as a rule --max_completion_length")
    scale_rewards: bool | Literal["group", "none"] = option(
        True, "divide advantages by the deviation of the group's rewards (Dr. GRPO: false); TRL's group and none"
    )
    scale_epsilon: float = option(1e-4, "added to that deviation")

    def __post_init__(self) -> None:
        self.scale_rewards = self.scale_rewards in (True, "group")
        self.require(self.beta >= 0, f"beta must not be negative, not {self.beta}")
        self.require(self.epsilon > 0, f"epsilon must be positive, not {self.epsilon}")
        self.require(
            self.epsilon_high is None or self.epsilon_high > 0,
            f"epsilon_high must be positive, not {self.epsilon_high}",
        )
        self.require(
            self.aggregation in AGGREGATIONS,
            f"aggregation must be one of {', '.join(AGGREGATIONS)}, not {self.aggregation!r}",
        )
        self.require(
            self.aggregation_length >= 1, f"aggregation_length must be at least 1, not {self.aggregation_length}"
        )
        self.require(self.scale_epsilon > 0, f"scale_epsilon must be positive, not {self.scale_epsilon}")


class GRPO(Algorithm[GRPOConfig]):
    """Every token of a completion shares its advantage over the other samples of the prompt."""

    name = "grpo"
    summary = "clipped policy gradient of tokens, with rewards standardised among the samples of a prompt"
    paper = Paper(
        "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
        "https://arxiv.org/abs/2402.03300",
        2024,
    )
    equation = (
        "L = mean over sequences of the mean over tokens of max(-A rho_t, -A clip(rho_t)) + beta (e^d - 1 - d),  "
        "rho_t = pi / pi_old of token t,  d = log ref - log pi of it,  A_i = (r_i - mean r) / (std r + scale_epsilon)"
    )
    data = "rollouts"
    needs = Needs(reference=True, samples=8)
    Config = GRPOConfig
    metrics = {
        "kl": "KL to the reference estimated by e^d - 1 - d, a mean over the sampled tokens",
        "ratio": "mean ratio of tokens; 1 on the policy that sampled",
        "clip_fraction": "share of tokens whose ratio was clipped",
        "logps": "mean log-probability of the sampled completions",
    }
    training = {"learning_rate": 1e-6}
    lora_training = {"learning_rate": 1e-5}
    aliases = {"epsilon_low": "epsilon"}
    accepts = {"loss_type": "grpo", "importance_sampling_level": "token"}
    golden = {
        "grpo": {"eps_low": "epsilon", "eps_high": "epsilon_high", "max_length": "aggregation_length"},
        "grpo_advantages": {"scale": "scale_rewards", "eps": "scale_epsilon"},
    }
    functions = {"kl_estimators": _kl_estimators}

    def __init__(self, config: GRPOConfig | None = None) -> None:
        super().__init__(config)
        self.needs = Needs(reference=self.config.beta > 0, samples=8)

    def experience(self, batch: Batch, policy: Scores, reference: Scores | None) -> Mapping[str, Tensor]:
        rewards = batch.lists(batch.scores)
        advantages = group_advantages(rewards, bool(self.config.scale_rewards), self.config.scale_epsilon)
        return {"advantages": batch.unlists(advantages)}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        config, mask = self.config, batch.mask
        # Without a record of the sampling policy this is its own batch: the ratio is 1 and only its gradient matters.
        old_logps = batch.columns.get("old_logps", policy.logps.detach())
        ratio = torch.exp(bounded(policy.logps - old_logps))
        advantages = batch.columns["advantages"][:, None].expand_as(ratio)
        high = config.epsilon if config.epsilon_high is None else config.epsilon_high
        losses = clipped_surrogate(ratio, advantages, config.epsilon, high)
        ratios = ratio[mask].detach()
        clipped = (losses > -advantages * ratio)[mask]
        metrics = {"ratio": ratios, "clip_fraction": clipped.to(ratio.dtype), "logps": policy.sum().detach()}
        if reference is not None:
            kl = k3(policy.logps, reference.logps)
            losses = losses + config.beta * kl
            metrics["kl"] = kl[mask].detach()
        if config.aggregation == "token_mean":
            return Loss([Term(losses, "token")], metrics)
        lengths = policy.lengths if config.aggregation == "sequence_mean" else config.aggregation_length
        return Loss([Term(losses.masked_fill(~mask, 0.0).sum(-1) / lengths, "completion")], metrics)
