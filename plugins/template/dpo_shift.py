"""dpo_shift: a method of pairs for xpo.

It begins as DPO-Shift (Yang et al. 2025, arXiv 2502.07599). Make it yours from the top: the equation, what it needs,
its settings, what it logs. `xpo check dpo_shift` says what no longer fits together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid
from xpo import (
    PAIR_METRICS,
    Algorithm,
    Batch,
    Config,
    Loss,
    Needs,
    Paper,
    Scores,
    Term,
    hookimpl,
    option,
    rewards_of_pairs,
)


def dpo_shift_loss(chosen: Tensor, rejected: Tensor, beta: float, shift: float) -> Tensor:
    """-log sigmoid(beta (R_w - shift R_l)). The log-ratios R are (P,) sums over tokens, the losses (P,) too."""
    return -logsigmoid(beta * (chosen - shift * rejected))


@dataclass
class DpoShiftConfig(Config):
    """Every field is a flag of `xpo train --algo dpo_shift`."""

    beta: float = option(0.1, "strength of the tie to the reference")
    shift: float = option(0.75, "weight of the rejected completion, in (0, 1]; 1 is DPO")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(0 < self.shift <= 1, f"shift must be in (0, 1], not {self.shift}")


class DpoShift(Algorithm[DpoShiftConfig]):
    """DPO in which the rejected completion weighs less, so that the chosen one is not pulled down with it."""

    name = "dpo_shift"
    summary = "DPO with less weight on the rejected completion"
    paper = Paper("DPO-Shift: Shifting the Distribution of DPO", "https://arxiv.org/abs/2502.07599", 2025)
    equation = "L = mean over pairs of -log sigmoid(beta (R_w - shift R_l)),  R = log pi(y|x) - log ref(y|x)"
    data = "pairs"
    needs = Needs(reference=True)  # without this, `reference` below is None and no reference model is loaded
    Config = DpoShiftConfig
    metrics = PAIR_METRICS  # what is logged, and what it means
    training = {"learning_rate": 5e-7}  # what your paper recommends; a user's flags come first
    raises = ("chosen",)  # promises that the check holds you to; leave out what your loss does not promise
    lowers = ("rejected",)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logratios = policy.sum() - reference.sum()  # (C,); policy.logps has the tokens, policy.mean() their average
        chosen, rejected = batch.pairs(logratios)
        losses = dpo_shift_loss(chosen, rejected, self.config.beta, self.config.shift)
        # One value a pair and no mean: the loop divides by the pairs of the whole step, over all processes.
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, self.config.beta * logratios, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float:
        return math.log(2.0)


@hookimpl
def xpo_algorithms() -> list[type[DpoShift]]:
    return [DpoShift]
