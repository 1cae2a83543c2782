"""Pairwise CRINGE (Xu et al. 2023, arXiv 2312.16682)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo_zoo.labels.cringe import contrasts, cringe_loss


def gate(chosen_logps: Tensor, rejected_logps: Tensor, b: float, tau: float) -> Tensor:
    """sigmoid((b - (log pi(y_w|x) - log pi(y_l|x))) / tau): how much a pair still has to teach.

    Args: two (P,) log-probabilities, each summed over the tokens of a completion.
    Returns: (P,) gates, 1 for a pair far below the margin b and 0 for one far above.
    """
    return torch.sigmoid((b - (chosen_logps - rejected_logps)) / tau)


@dataclass
class PairwiseCringeConfig(Config):
    """Settings of pairwise CRINGE."""

    alpha: float = option(1.0, "weight of the contrast on the rejected completion")
    b: float = option(0.0, "margin in nats of summed log-probability at which a pair has half its weight (-10 to 0)")
    tau: float = option(1.0, "width of the gate around that margin, in nats")
    detach_gate: bool = option(False, "let the gate weigh the loss only, without a gradient of its own")
    k: int = option(5, "the token to say instead is sampled from this many likeliest ones")
    detach_positives: bool = option(False, "hold the log-probability of the token to say instead constant")
    contrast_seed: int = option(0, "seed of that sampling; a row meets the same random numbers in every epoch")

    def __post_init__(self) -> None:
        self.require(self.alpha >= 0, f"alpha must not be negative, not {self.alpha}")
        self.require(self.tau > 0, f"tau must be positive, not {self.tau}")
        self.require(self.k >= 1, f"k must be at least 1, not {self.k}")


class PairwiseCringe(Algorithm[PairwiseCringeConfig]):
    """CRINGE on both sides of a pair, until the chosen completion leads by a margin."""

    name = "pairwise_cringe"
    summary = "NLL of the chosen and token contrast on the rejected completion, until the pair is a margin apart"
    paper = Paper("Some things are more CRINGE than others", "https://arxiv.org/abs/2312.16682", 2023)
    equation = (
        "L = mean over the tokens of all pairs of g (-log pi(y_t)) in y_w, g alpha log(1 + exp(z[y_t] - z[s*])) in "
        "y_l,  g = sigmoid((b - (S_w - S_l)) / tau),  s* sampled from the top k of pi without y_t"
    )
    data = "pairs"
    needs = Needs(vocabulary=True)
    Config = PairwiseCringeConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean log-probability of the chosen completions, which is what the gate compares",
        "rewards/rejected": "the same of the rejected completions",
        "gate": "mean gate of the pairs: 1 where they still train, 0 where they are done",
        "nll_loss": "mean NLL a token of the chosen completions, before the gate",
        "cringe_loss": "mean contrast a token of the rejected completions, before the gate and alpha",
    }
    training = {"learning_rate": 1e-6}
    lora_training = {"learning_rate": 1e-5}
    raises = ("chosen",)
    lowers = ("rejected",)
    golden = {"pairwise_cringe": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        config, logps = self.config, policy.sum()
        instead = contrasts(
            batch,
            policy,
            batch.rejected,
            k=config.k,
            seed=config.contrast_seed,
            detach_positives=config.detach_positives,
        )
        chosen, rejected = batch.pairs(policy.logps)
        penalties = cringe_loss(rejected, instead)
        gates = gate(*batch.pairs(logps), config.b, config.tau)
        weights = (gates.detach() if config.detach_gate else gates)[:, None]
        # One mean over all tokens, as where desirable and undesirable completions come without pairs.
        values = torch.zeros_like(policy.logps)
        values = values.index_copy(0, batch.chosen, -weights * chosen)
        values = values.index_copy(0, batch.rejected, weights * config.alpha * penalties)
        sides = ("chosen", "rejected")
        chosen_mask, rejected_mask = batch.pairs(batch.mask)
        metrics = {
            **rewards_of_pairs(batch, logps, logps),
            "gate": gates,
            "nll_loss": -chosen[chosen_mask],
            "cringe_loss": penalties[rejected_mask],
        }
        return Loss([Term(values[batch.where(*sides)], "token", over=sides)], metrics)
