"""LD-DPO: length desensitisation in direct preference optimisation (Liu et al. 2024, arXiv 2409.06411)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import softplus


def desensitised(logps: Tensor, shared: Tensor, alpha: float) -> Tensor:
    """(C, T) token log-probabilities with those beyond the first ``shared`` tokens of each row scaled by ``alpha``.

    Args: (C,) numbers of tokens that both completions of a pair have; positions count from the start of the completion.
    """
    position = torch.arange(logps.shape[-1], device=logps.device)
    return torch.where(position < shared[:, None], logps, alpha * logps)


@dataclass
class LDDPOConfig(Config):
    """Settings of LD-DPO."""

    beta: float = option(0.1, "strength of the tie to the reference; higher stays closer to it (0.01 to 0.5)")
    alpha: float = option(
        0.5, "weight of the tokens by which a completion is longer than the other, in [0, 1]; 1 is DPO"
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(0 <= self.alpha <= 1, f"alpha must be in [0, 1], not {self.alpha}")


class LDDPO(Algorithm[LDDPOConfig]):
    """DPO in which the surplus of the longer completion weighs less, in the policy and in the reference alike."""

    name = "ld_dpo"
    summary = "DPO that plays down the tokens by which one completion is longer than the other"
    paper = Paper("Length Desensitization in Direct Preference Optimization", "https://arxiv.org/abs/2409.06411", 2024)
    equation = (
        "L = mean over pairs of -log sigmoid(beta (R_w - R_l)),  "
        "R = sum over t <= m of d_t + alpha sum over t > m of d_t,  d = log pi - log ref,  m = min(|w|, |l|)"
    )
    data = "pairs"
    needs = Needs(reference=True)
    Config = LDDPOConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean beta R of the chosen completions, the surplus of the longer one weighed by alpha",
        "rewards/rejected": "the same of the rejected completions",
        "logps/chosen": "mean log-probability of the chosen completions, weighed alike",
        "logps/rejected": "the same of the rejected completions",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    aliases = {"ld_alpha": "alpha"}
    accepts = {"loss_type": "sigmoid"}
    golden = {"ld_dpo": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        shared = batch.lengths.clone()
        shared[batch.chosen] = shared[batch.rejected] = torch.minimum(*batch.pairs(batch.lengths))
        own, theirs = (
            Scores(desensitised(scores.logps, shared, self.config.alpha), batch.mask).sum()
            for scores in (policy, reference)
        )
        chosen, rejected = batch.pairs(own - theirs)
        losses = softplus(-self.config.beta * (chosen - rejected))
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, self.config.beta * (own - theirs), own))

    def value_at_reference(self, batch: Batch) -> float:
        return math.log(2.0)
