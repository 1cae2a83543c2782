"""Generalised preference optimisation (Tang et al. 2024, arXiv 2402.05749)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import bounded, softplus

#: What a margin z costs: decreasing at 0, convex but for Savage.
COSTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "logistic": lambda z: softplus(-z),
    "hinge": lambda z: (1.0 - z).relu(),
    "squared": lambda z: (z - 1.0).square(),
    "exponential": lambda z: torch.exp(bounded(-z)),
    "truncated_quadratic": lambda z: (1.0 - z).relu().square(),
    "savage": lambda z: torch.sigmoid(-z).square(),
}


def gpo_loss(margins: Tensor, beta: float, f: str) -> Tensor:
    """f(beta D) with f one of ``COSTS``.

    Args: (P,) margins D, the difference of the log-ratios of chosen and rejected.
    Returns: (P,) losses; f(0) each where the policy equals the reference.
    """
    return COSTS[f](beta * margins)


@dataclass
class GPOConfig(Config):
    """Settings of GPO."""

    beta: float = option(0.1, "strength of the tie to the reference; to compare two f, match beta f''(0) / |f'(0)|")
    f: str = option(
        "logistic",
        "what a margin costs: 'logistic' (DPO), 'hinge' (RSO), 'squared' (IPO on sums at tau = beta / 2, times beta "
        "squared), 'exponential', 'truncated_quadratic' or 'savage'",
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.f in COSTS, f"f must be one of {', '.join(COSTS)}, not {self.f!r}")


class GPO(Algorithm[GPOConfig]):
    """The family that DPO, IPO and the hinge loss belong to: any loss of binary classification on the margin."""

    name = "gpo"
    summary = "any loss of binary classification on the difference of log-ratios"
    paper = Paper(
        "Generalized Preference Optimization: A Unified Approach to Offline Alignment",
        "https://arxiv.org/abs/2402.05749",
        2024,
    )
    equation = "L = mean over pairs of f(beta (R_w - R_l)),  R = log pi(y|x) - log ref(y|x), sums over tokens"
    data = "pairs"
    needs = Needs(reference=True)
    Config = GPOConfig
    metrics = PAIR_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    golden = {"gpo": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logratios = policy.sum() - reference.sum()
        chosen, rejected = batch.pairs(logratios)
        losses = gpo_loss(chosen - rejected, self.config.beta, self.config.f)
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, self.config.beta * logratios, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float:
        return float(COSTS[self.config.f](torch.zeros((), dtype=torch.float64)))
