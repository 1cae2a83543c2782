"""A plain classifier on the implicit reward: the baseline that BCO (arXiv 2404.04656) and KTO improve on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option
from xpo.api.math import softplus
from xpo_zoo.logged import LABEL_METRICS, rewards_of_labels


def binary_classifier_loss(logratios: Tensor, desirable: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta R) for desirable, -log sigmoid(-beta R) for undesirable completions.

    Args: (B,) log-ratios R summed over tokens, (B,) booleans.
    Returns: (B,) losses; ln 2 each where the policy equals the reference. BCO with its shift held at 0.
    """
    return softplus(torch.where(desirable, -beta * logratios, beta * logratios))


@dataclass
class BinaryClassifierConfig(Config):
    """Settings of the binary classifier."""

    beta: float = option(0.1, "strength of the tie to the reference (0.01 to 0.5)")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")


class BinaryClassifier(Algorithm[BinaryClassifierConfig]):
    """Cross-entropy with the implicit reward as the logit; it ignores where those rewards are centred."""

    name = "binary_classifier"
    summary = "cross-entropy of single labelled completions with the implicit reward as the logit; a baseline"
    paper = Paper(
        "Binary Classifier Optimization for Large Language Model Alignment", "https://arxiv.org/abs/2404.04656", 2024
    )
    equation = "L = mean of -log sigmoid(beta R) if desirable, -log sigmoid(-beta R) if not"
    data = "labels"
    needs = Needs(reference=True)
    Config = BinaryClassifierConfig
    metrics = LABEL_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("desirable",)
    lowers = ("undesirable",)
    golden = {"binary_classifier": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logps = policy.sum()
        logratios = logps - reference.sum()
        losses = binary_classifier_loss(logratios, batch.labels, self.config.beta)
        metrics = rewards_of_labels(batch, self.config.beta * logratios.detach(), logps.detach())
        return Loss([Term(losses, "completion", over="completion")], metrics)

    def value_at_reference(self, batch: Batch) -> float | None:
        return math.log(2.0)
