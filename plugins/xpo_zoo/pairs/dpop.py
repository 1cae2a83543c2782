"""DPO-Positive, the method of Smaug (Pal et al. 2024, arXiv 2402.13228)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import softplus


def dpop_loss(chosen_logratios: Tensor, rejected_logratios: Tensor, beta: float, lambda_: float) -> Tensor:
    """-log sigmoid(beta [R_w - R_l - lambda max(0, -R_w)]).

    Args: two (P,) log-ratios, summed over tokens. The penalty stands inside the sigmoid and is scaled by beta.
    Returns: (P,) losses; ln 2 each where the policy equals the reference.
    """
    # relu has slope 0 at 0, where training starts; clamp_min would have slope 1 there.
    penalty = (-chosen_logratios).relu()
    return softplus(-beta * (chosen_logratios - rejected_logratios - lambda_ * penalty))


@dataclass
class DPOPConfig(Config):
    """Settings of DPOP."""

    beta: float = option(0.3, "strength of the tie to the reference; higher stays closer to it")
    lambda_: float = option(
        50.0, "weight of the penalty on chosen completions below the reference (5 to 500); 0 is DPO"
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.lambda_ >= 0, f"lambda_ must not be negative, not {self.lambda_}")


class DPOP(Algorithm[DPOPConfig]):
    """DPO in which the chosen completion may not become less likely than under the reference.

    For pairs that differ in few tokens, such as worked mathematics, where DPO lowers both completions.
    """

    name = "dpop"
    summary = "DPO with a penalty on chosen completions that fall below the reference"
    paper = Paper(
        "Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive",
        "https://arxiv.org/abs/2402.13228",
        2024,
    )
    equation = (
        "L = mean over pairs of -log sigmoid(beta (R_w - R_l - lambda max(0, -R_w))),  R = log pi(y|x) - log ref(y|x)"
    )
    data = "pairs"
    needs = Needs(reference=True)
    Config = DPOPConfig
    metrics = {**PAIR_METRICS, "penalty": "mean max(0, -R_w): nats the chosen completions are below the reference"}
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    golden = {"dpop": {"lambda": "lambda_"}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logratios = policy.sum() - reference.sum()
        chosen, rejected = batch.pairs(logratios)
        losses = dpop_loss(chosen, rejected, self.config.beta, self.config.lambda_)
        metrics = rewards_of_pairs(batch, self.config.beta * logratios, policy.sum())
        return Loss([Term(losses, "pair")], {**metrics, "penalty": (-chosen).relu()})

    def value_at_reference(self, batch: Batch) -> float:
        return math.log(2.0)
