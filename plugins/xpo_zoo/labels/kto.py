"""Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, DataError, Group, Loss, Needs, Paper, Scores, Term, option


def kto_loss(
    logratios: Tensor,
    desirable: Tensor,
    z0: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """lambda_D sigmoid(beta (z0 - R)) for desirable, lambda_U sigmoid(beta (R - z0)) for undesirable: eq. 8.

    Args: (B,) log-ratios R summed over tokens, (B,) booleans, and the scalar reference point z0 without gradient.
    Returns: (B,) losses; half a weight each where policy equals reference. 1 - sigmoid(z) is written sigmoid(-z),
        which keeps its digits.
    """
    gains = desirable_weight * torch.sigmoid(-beta * (logratios - z0))
    losses = undesirable_weight * torch.sigmoid(beta * (logratios - z0))
    return torch.where(desirable, gains, losses)


def mismatched(prompts: Sequence[Any]) -> list[int]:
    """For every prompt the index of another whose completion it borrows, never one with an equal prompt.

    The cyclic shift i -> i - 1 where that is a mismatch everywhere. Otherwise equal prompts are laid side by side and
    shifted by the size of the largest such bunch, which lands outside the bunch whenever that is possible at all.

    Raises:
        DataError: one prompt makes up more than half of them, so that some completion must meet its own prompt.
    """
    n = len(prompts)
    if n > 1 and all(prompts[i] != prompts[i - 1] for i in range(n)):
        return [(i - 1) % n for i in range(n)]
    first: dict[Any, int] = {}
    order = sorted(range(n), key=lambda i: (first.setdefault(prompts[i], i), i))
    largest = max((prompts.count(prompt) for prompt in first), default=n)
    if 2 * largest > n:
        raise DataError(
            f"one prompt fills {largest} of the {n} rows of a step, so its completions cannot all be mismatched; "
            "raise --per_device_train_batch_size, remove duplicate prompts, or set --z0 zero"
        )
    partner = [0] * n
    for position, index in enumerate(order):
        partner[index] = order[(position - largest) % n]
    return partner


@dataclass
class KTOConfig(Config):
    """Settings of KTO."""

    beta: float = option(0.1, "strength of the tie to the reference (0.01 to 0.5)")
    desirable_weight: float = option(
        1.0,
        "weight of desirable completions; with n_D and n_U of each, keep "
        "desirable_weight n_D / (undesirable_weight n_U) within 1 and 4/3",
    )
    undesirable_weight: float = option(1.0, "weight of undesirable completions")
    z0: str = option(
        "batch",
        "reference point: 'batch', the KL over mismatched completions of a micro-batch on all "
        "ranks, or 'zero', which needs no mismatched completions",
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.desirable_weight > 0, f"desirable_weight must be positive, not {self.desirable_weight}")
        self.require(self.undesirable_weight > 0, f"undesirable_weight must be positive, not {self.undesirable_weight}")
        self.require(self.z0 in ("batch", "zero"), f"z0 must be 'batch' or 'zero', not {self.z0!r}")


class KTO(Algorithm[KTOConfig]):
    """Each completion is a gain or a loss against a reference point, weighed as people weigh them."""

    name = "kto"
    summary = "gains and losses of single labelled completions against a reference point"
    paper = Paper("KTO: Model Alignment as Prospect Theoretic Optimization", "https://arxiv.org/abs/2402.01306", 2024)
    equation = (
        "L = mean of lambda_D sigmoid(beta (z0 - R)) if desirable, lambda_U sigmoid(beta (R - z0)) if not,  "
        "z0 = max(0, mean of log pi(y'|x) - log ref(y'|x) over mismatched y')"
    )
    data = "labels"
    needs = Needs(reference=True, least=2)
    Config = KTOConfig
    metrics = {
        "rewards/chosen": "mean beta R of the desirable completions",
        "rewards/rejected": "mean beta R of the undesirable completions",
        "logps/chosen": "mean log-probability of the desirable completions",
        "logps/rejected": "mean log-probability of the undesirable completions",
        "kl": "z0: mean log-ratio of mismatched completions, not below 0",
        "share/desirable": "share of desirable completions",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("desirable",)
    lowers = ("undesirable",)
    accepts = {"loss_type": "kto"}
    golden = {"kto": {"kl": "mismatched", "z0": "kl"}}
    functions = {
        "kto_kl_pairs": lambda batch_size: {"completion_index": mismatched(range(batch_size))},
    }

    def __init__(self, config: KTOConfig | None = None) -> None:
        super().__init__(config)
        if self.config.z0 == "zero":
            self.needs = Needs(reference=True)

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        """Give every prompt the completion of another one, scored without gradient, for z0."""
        if self.config.z0 == "zero":
            return list(groups)
        partners = mismatched([tuple(group.prompt_ids) for group in groups])
        borrowed = [
            replace(groups[partner].completions[0], role="mismatched", label=None, trainable=False)
            for partner in partners
        ]
        return [
            replace(group, completions=[*group.completions, other])
            for group, other in zip(groups, borrowed, strict=True)
        ]

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        all_logratios = policy.sum() - reference.sum()
        z0 = batch.global_mean(all_logratios[batch.where("mismatched")]).clamp_min(0.0)  # clamp after the global mean
        index = batch.where("completion")
        logratios, desirable = all_logratios[index], batch.labels[index]
        config = self.config
        losses = kto_loss(logratios, desirable, z0, config.beta, config.desirable_weight, config.undesirable_weight)
        rewards, logps = config.beta * logratios, policy.sum()[index]
        metrics = {
            "rewards/chosen": rewards[desirable],
            "rewards/rejected": rewards[~desirable],
            "logps/chosen": logps[desirable],
            "logps/rejected": logps[~desirable],
            "kl": z0.reshape(1),
            "share/desirable": desirable.to(rewards.dtype),
        }
        return Loss([Term(losses, "completion", over="completion")], metrics)

    def value_at_reference(self, batch: Batch) -> float:
        desirable = batch.labels[batch.where("completion")].double()
        config = self.config
        weights = config.desirable_weight * desirable + config.undesirable_weight * (1.0 - desirable)
        return 0.5 * float(weights.mean())
