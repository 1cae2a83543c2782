"""RPO: DPO with a negative log-likelihood, for reasoning (Pang et al. 2024, arXiv 2404.19733)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from xpo import (
    NLL,
    PAIR_METRICS,
    Algorithm,
    Batch,
    Config,
    Loss,
    Needs,
    Paper,
    Scores,
    Term,
    nll,
    option,
    rewards_of_pairs,
)
from xpo.api.math import softplus


def rpo_preference_loss(chosen_logratios: Tensor, rejected_logratios: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta (R_w - R_l)), to which alpha times the NLL of the chosen completion is added.

    Args: two (P,) log-ratios, summed over tokens.
    Returns: (P,) losses.
    """
    return softplus(-beta * (chosen_logratios - rejected_logratios))


@dataclass
class RPOConfig(Config):
    """Settings of RPO."""

    beta: float = option(0.1, "strength of the tie to the reference; higher stays closer to it (0.01 to 0.5)")
    alpha: float = option(1.0, "weight of the NLL of the chosen completions; 0 is DPO")
    nll: str = option(
        "sequence",
        "how the NLL is averaged: 'sequence', over completions of their mean over tokens, as in the paper; 'token', "
        "over all tokens of the step, as in TRL; or 'sum', over completions of their sum",
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.alpha >= 0, f"alpha must not be negative, not {self.alpha}")
        self.require(self.nll in NLL, f"nll must be one of {', '.join(NLL)}, not {self.nll!r}")


class RPO(Algorithm[RPOConfig]):
    """DPO that also imitates the chosen completions, so that their likelihood does not fall along with the rejected.

    Regularised preference optimisation (2405.16436) is the same with alpha 0.005. Two others share the name and no
    more: relative (2402.10958) and reward-aware (2502.00203, here rpo_reward_aware) preference optimisation.
    """

    name = "rpo"
    summary = "DPO plus a negative log-likelihood of the chosen completions"
    paper = Paper("Iterative Reasoning Preference Optimization", "https://arxiv.org/abs/2404.19733", 2024)
    equation = (
        "L = mean over pairs of -log sigmoid(beta (R_w - R_l)) - alpha log pi(w|x)/|w|,  R = log pi(y|x) - log ref(y|x)"
    )
    data = "pairs"
    needs = Needs(reference=True)
    Config = RPOConfig
    metrics = {
        **PAIR_METRICS,
        "nll_loss": "negative log-likelihood of the chosen completions, averaged as the setting nll says",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    aliases = {"rpo_alpha": "alpha"}
    accepts = {"loss_type": "sigmoid"}
    golden = {"rpo_nll": {"dpo": "loss/preference"}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        config = self.config
        logratios = policy.sum() - reference.sum()
        preference = Term(rpo_preference_loss(*batch.pairs(logratios), config.beta), "pair")
        likelihood, items = nll(batch, policy, "chosen", weight=config.alpha, per=config.nll)
        metrics = {**rewards_of_pairs(batch, config.beta * logratios, policy.sum()), "nll_loss": items}
        return Loss([preference, likelihood] if config.alpha else [preference], metrics)

    def value_at_reference(self, batch: Batch) -> float | None:
        return None if self.config.alpha else math.log(2.0)
