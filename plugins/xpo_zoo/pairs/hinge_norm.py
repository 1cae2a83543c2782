"""The losses of statistical rejection sampling optimisation, RSO (Liu et al. 2023, arXiv 2309.06657)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs


def hinge_norm_loss(margins: Tensor, beta: float) -> Tensor:
    """max(0, 1 - beta D): a pair whose margin beta D reaches 1 is done with.

    Args: (P,) margins D, the difference of the log-ratios of chosen and rejected.
    Returns: (P,) losses; 1 each where the policy equals the reference.
    """
    return (1.0 - beta * margins).relu()


def rso_accept(
    rewards: Sequence[float], uniforms: Sequence[float], *, beta: float, num: int
) -> Mapping[str, list[int]]:
    """Indices of the samples that RSO's rejection sampling accepts, in the order it does.

    It sweeps over those not accepted yet and takes sample i with probability exp((r_i - r_max) / beta), r_max the best
    among them when the sweep begins, until ``num`` are found. The best is always taken, so that it ends. A large beta
    keeps samples as they come, a small one keeps the best.

    Args:
        rewards: what each sample is worth.
        uniforms: random numbers in [0, 1), used up one a decision.
        beta: the temperature, 0.5 in the paper; not the beta of the loss.
        num: samples to accept, 8 of 64 in the paper.
    """
    draws = iter(uniforms)
    accepted: list[int] = []
    pool = list(range(len(rewards)))
    while pool and len(accepted) < num:
        best = max(rewards[index] for index in pool)
        for index in list(pool):
            if len(accepted) < num and next(draws) < math.exp((rewards[index] - best) / beta):
                accepted.append(index)
                pool.remove(index)
    return {"accepted": accepted}


@dataclass
class HingeNormConfig(Config):
    """Settings of the hinge loss of RSO."""

    beta: float = option(
        0.05, "scale of the margin, the paper's gamma: a pair is done with at a margin of 1 / beta nats"
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")


class HingeNorm(Algorithm[HingeNormConfig]):
    """A support-vector machine on the margin of log-ratios, for pairs drawn by rejection sampling.

    The other loss of the paper, sigmoid-norm, is DPO. SLiC has no reference: its hinge is another method.
    """

    name = "hinge_norm"
    summary = "hinge loss on the difference of log-ratios to a reference"
    paper = Paper(
        "Statistical Rejection Sampling Improves Preference Optimization", "https://arxiv.org/abs/2309.06657", 2023
    )
    equation = "L = mean over pairs of max(0, 1 - beta (R_w - R_l)),  R = log pi(y|x) - log ref(y|x), sums over tokens"
    data = "pairs"
    needs = Needs(reference=True)
    Config = HingeNormConfig
    metrics = PAIR_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    aliases = {"gamma": "beta"}
    accepts = {"loss_type": "hinge"}
    golden = {"hinge_norm": {}}
    functions = {"rso_accept": rso_accept}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logratios = policy.sum() - reference.sum()
        chosen, rejected = batch.pairs(logratios)
        losses = hinge_norm_loss(chosen - rejected, self.config.beta)
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, self.config.beta * logratios, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float:
        return 1.0
