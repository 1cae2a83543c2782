"""Binary classifier optimisation (Jung et al. 2024, arXiv 2404.04656)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option
from xpo.api.math import softplus
from xpo_zoo.logged import LABEL_METRICS, rewards_of_labels


def bco_loss(
    rewards: Tensor,
    desirable: Tensor,
    delta: float | Tensor,
    desirable_weight: float | Tensor = 1.0,
    undesirable_weight: float | Tensor = 1.0,
) -> Tensor:
    """-log sigmoid(r - delta) for desirable, -log sigmoid(-(r - delta)) for undesirable, times a weight.

    Args: (B,) rewards r = beta (log pi - log ref) summed over tokens, (B,) booleans, and the reward shift without
        gradient; weights are one number or (B,).
    Returns: (B,) losses.
    """
    shifted = rewards - delta
    return torch.where(desirable, desirable_weight * softplus(-shifted), undesirable_weight * softplus(shifted))


def density_weights(p_desirable: Tensor, least: float = 0.5, most: float = 10.0) -> Tensor:
    """p / (1 - p) between ``least`` and ``most``: how much likelier a prompt is in the desirable set.

    Weights of undesirable completions that match their prompts to those of desirable ones (underlying distribution
    matching). Args: (n,) the probabilities p a classifier of prompts gives.
    """
    return (p_desirable / (1.0 - p_desirable)).clamp(least, most)


def _density_weights(p_desirable: Sequence[float], **bounds: float) -> dict[str, list[float]]:
    weights = density_weights(
        torch.tensor(p_desirable, dtype=torch.float64), bounds.get("min", 0.5), bounds.get("max", 10.0)
    )
    return {"weight": weights.tolist()}


@dataclass
class BCOConfig(Config):
    """Settings of BCO."""

    beta: float = option(0.1, "strength of the tie to the reference (the paper uses 0.01)")
    desirable_weight: float = option(1.0, "weight of desirable completions")
    undesirable_weight: float = option(
        1.0, "weight of undesirable completions, times their column undesirable_density_weight where there is one"
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.desirable_weight > 0, f"desirable_weight must be positive, not {self.desirable_weight}")
        self.require(self.undesirable_weight > 0, f"undesirable_weight must be positive, not {self.undesirable_weight}")


class BCO(Algorithm[BCOConfig]):
    """A classifier of desirable and undesirable whose logit is the implicit reward less its running mean."""

    name = "bco"
    summary = "binary classifier of single labelled completions on the implicit reward less its running mean"
    paper = Paper(
        "Binary Classifier Optimization for Large Language Model Alignment", "https://arxiv.org/abs/2404.04656", 2024
    )
    equation = (
        "L = mean of -log sigmoid(beta R - delta) if desirable, -w log sigmoid(delta - beta R) if not,  "
        "delta = running mean of beta R over the batches so far, this one included"
    )
    data = "labels"
    columns = ("undesirable_density_weight",)
    needs = Needs(reference=True)
    Config = BCOConfig
    metrics = {**LABEL_METRICS, "delta": "reward shift: running mean of beta R over the micro-batches so far"}
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("desirable",)
    lowers = ("undesirable",)
    golden = {"bco_unpaired": {}}
    functions = {"bco_density_weight": _density_weights}

    def __init__(self, config: BCOConfig | None = None) -> None:
        super().__init__(config)
        self.delta, self.delta_count = 0.0, 0

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logps = policy.sum()
        rewards = self.config.beta * (logps - reference.sum())
        if torch.is_grad_enabled():
            self._shift(batch, rewards.detach())
        weights = self.config.undesirable_weight * self._density(batch, rewards)
        losses = bco_loss(rewards, batch.labels, self.delta, self.config.desirable_weight, weights)
        metrics = rewards_of_labels(batch, rewards.detach(), logps.detach())
        metrics["delta"] = rewards.new_tensor([self.delta])
        return Loss([Term(losses, "completion", over="completion")], metrics)

    def value_at_reference(self, batch: Batch) -> float | None:
        """ln 2 times the mean weight, as long as delta has not moved."""
        if self.delta:
            return None
        zeros = torch.zeros_like(batch.scores)
        weights = self.config.undesirable_weight * self._density(batch, zeros)
        return float(bco_loss(zeros, batch.labels, 0.0, self.config.desirable_weight, weights).mean())

    def _density(self, batch: Batch, like: Tensor) -> Tensor:
        missing = torch.full_like(like, float("nan"))
        return batch.columns.get("undesirable_density_weight", missing).nan_to_num(1.0)

    def _shift(self, batch: Batch, rewards: Tensor) -> None:
        """Take the mean of the batch over all ranks into the running mean of such means, before that is used.

        A rank without rows of its own adds nothing but follows, so that delta stays the same everywhere.
        """
        rewards = rewards[:0] if batch.idle else rewards
        total, count = batch.reduce(torch.stack([rewards.sum(), rewards.new_tensor(float(rewards.numel()))])).tolist()
        if count:
            self.delta_count += 1
            self.delta += (total / count - self.delta) / self.delta_count

    def state_dict(self) -> dict[str, Any]:
        return {"delta": self.delta, "delta_count": self.delta_count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.delta, self.delta_count = float(state.get("delta", 0.0)), int(state.get("delta_count", 0))
