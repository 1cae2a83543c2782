"""APO-zero on labelled completions (D'Oosterlinck et al. 2024, arXiv 2408.06266)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option
from xpo_zoo.logged import LABEL_METRICS, rewards_of_labels


def apo_zero_unpaired_loss(
    logratios: Tensor,
    desirable: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """lambda_D sigmoid(-beta R) for desirable, lambda_U sigmoid(beta R) for undesirable completions.

    Args: (B,) log-ratios R summed over tokens, (B,) booleans.
    Returns: (B,) losses; half a weight each where the policy equals the reference. KTO with z0 = 0.
    """
    return torch.where(
        desirable,
        desirable_weight * torch.sigmoid(-beta * logratios),
        undesirable_weight * torch.sigmoid(beta * logratios),
    )


@dataclass
class APOZeroUnpairedConfig(Config):
    """Settings of APO-zero on labelled completions."""

    beta: float = option(0.1, "strength of the tie to the reference (0.01 to 0.5)")
    desirable_weight: float = option(1.0, "weight of desirable completions")
    undesirable_weight: float = option(1.0, "weight of undesirable completions")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.desirable_weight > 0, f"desirable_weight must be positive, not {self.desirable_weight}")
        self.require(self.undesirable_weight > 0, f"undesirable_weight must be positive, not {self.undesirable_weight}")


class APOZeroUnpaired(Algorithm[APOZeroUnpairedConfig]):
    """Desirable completions become likelier than under the reference, undesirable ones less likely."""

    name = "apo_zero_unpaired"
    summary = "saturating gains and losses of single labelled completions, anchored at the reference"
    paper = Paper(
        "Anchored Preference Optimization and Contrastive Revisions", "https://arxiv.org/abs/2408.06266", 2024
    )
    equation = "L = mean of lambda_D sigmoid(-beta R) if desirable, lambda_U sigmoid(beta R) if not"
    data = "labels"
    needs = Needs(reference=True)
    Config = APOZeroUnpairedConfig
    metrics = LABEL_METRICS
    training = {"learning_rate": 2e-7}
    lora_training = {"learning_rate": 2e-6}
    raises = ("desirable",)
    lowers = ("undesirable",)
    accepts = {"loss_type": "apo_zero_unpaired"}
    golden = {"apo_zero_unpaired": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logps, config = policy.sum(), self.config
        logratios = logps - reference.sum()
        losses = apo_zero_unpaired_loss(
            logratios, batch.labels, config.beta, config.desirable_weight, config.undesirable_weight
        )
        metrics = rewards_of_labels(batch, config.beta * logratios.detach(), logps.detach())
        return Loss([Term(losses, "completion", over="completion")], metrics)

    def value_at_reference(self, batch: Batch) -> float | None:
        desirable = float(batch.labels.double().mean())
        return 0.5 * (desirable * self.config.desirable_weight + (1.0 - desirable) * self.config.undesirable_weight)
