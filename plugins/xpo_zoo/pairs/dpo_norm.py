"""Length-normalised DPO, as in Tulu 3 (Lambert et al. 2024, arXiv 2411.15124)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import softplus


def dpo_norm_loss(chosen_average_logratios: Tensor, rejected_average_logratios: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta (R_w / |w| - R_l / |l|)).

    Args: two (P,) log-ratios averaged over the tokens of a completion, EOS included.
    Returns: (P,) losses; ln 2 each where the policy equals the reference.
    """
    return softplus(-beta * (chosen_average_logratios - rejected_average_logratios))


@dataclass
class DPONormConfig(Config):
    """Settings of length-normalised DPO."""

    beta: float = option(
        5.0, "strength of the tie to the reference, in nats a token: larger than that of DPO (2 to 10)"
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")


class DPONorm(Algorithm[DPONormConfig]):
    """DPO on averages over tokens, so that long completions do not have large margins for their length alone."""

    name = "dpo_norm"
    summary = "DPO on log-ratios averaged over tokens"
    paper = Paper(
        "Tulu 3: Pushing Frontiers in Open Language Model Post-Training", "https://arxiv.org/abs/2411.15124", 2024
    )
    equation = "L = mean over pairs of -log sigmoid(beta (R_w/|w| - R_l/|l|)),  R = log pi(y|x) - log ref(y|x)"
    data = "pairs"
    needs = Needs(reference=True)
    Config = DPONormConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean beta R/|y| of the chosen completions, |y| their tokens",
        "rewards/rejected": "the same of the rejected completions",
        "logps/chosen": "mean over pairs of the average log-probability a token of the chosen completion",
        "logps/rejected": "the same of the rejected completion",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    accepts = {"loss_type": "sigmoid_norm"}
    golden = {"dpo_length_norm": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logratios = policy.mean() - reference.mean()
        losses = dpo_norm_loss(*batch.pairs(logratios), self.config.beta)
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, self.config.beta * logratios, policy.mean()))

    def value_at_reference(self, batch: Batch) -> float:
        return math.log(2.0)
