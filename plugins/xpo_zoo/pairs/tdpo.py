"""Token-level direct preference optimisation (Zeng et al. 2024, arXiv 2404.11999)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import forward_kl, softplus


def tdpo1_loss(
    chosen_logratios: Tensor, rejected_logratios: Tensor, chosen_kl: Tensor, rejected_kl: Tensor, beta: float
) -> Tensor:
    """-log sigmoid(beta [(R_w - R_l) - (K_l - K_w)]), TDPO1 of the paper.

    Args: (P,) log-ratios R and KLs K to the reference, both summed over the tokens of a completion.
    Returns: (P,) losses; ln 2 each where the policy equals the reference.
    """
    return softplus(-beta * ((chosen_logratios - rejected_logratios) - (rejected_kl - chosen_kl)))


def tdpo2_loss(
    chosen_logratios: Tensor,
    rejected_logratios: Tensor,
    chosen_kl: Tensor,
    rejected_kl: Tensor,
    beta: float,
    alpha: float,
) -> Tensor:
    """-log sigmoid(beta [(R_w - R_l) - alpha (K_l - sg[K_w])]), TDPO2 of the paper.

    Args: as for :func:`tdpo1_loss`. The gradient is stopped at the KL of the chosen completion, and only there.
    Returns: (P,) losses; ln 2 each where the policy equals the reference.
    """
    return softplus(-beta * ((chosen_logratios - rejected_logratios) - alpha * (rejected_kl - chosen_kl.detach())))


@dataclass
class TDPOConfig(Config):
    """Settings of TDPO."""

    version: int = option(2, "1 for TDPO1 (suits low learning rates), 2 for TDPO2 (suits high ones)")
    beta: float = option(0.1, "strength of the tie to the reference (0.1 to 0.5)")
    alpha: float | None = option(None, "weight of the difference of KLs; 0.5 if not given, for version 2 only")

    def __post_init__(self) -> None:
        self.require(self.version in (1, 2), f"version must be 1 or 2, not {self.version}")
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.alpha is None or self.version == 2, "alpha is for version 2; TDPO1 has none, so drop it")


class TDPO(Algorithm[TDPOConfig]):
    """DPO with the KL of every next-token distribution in the margin, which keeps both sides equally close."""

    name = "tdpo"
    summary = "DPO with the token-level KL to the reference in the margin"
    paper = Paper("Token-level Direct Preference Optimization", "https://arxiv.org/abs/2404.11999", 2024)
    equation = (
        "L = mean over pairs of -log sigmoid(beta [(R_w - R_l) - alpha (K_l - sg[K_w])]),  R = log pi(y|x) - log "
        "ref(y|x),  K = sum over tokens of KL(ref || pi); version 1: alpha = 1 and no stop-gradient"
    )
    data = "pairs"
    needs = Needs(reference=True, vocabulary=True, reference_vocabulary=True)
    Config = TDPOConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean beta (R + K) of the chosen completions",
        "rewards/rejected": "mean beta (R + K) of the rejected completions",
        "kl/chosen": "mean KL(ref || pi) of the chosen completions, summed over tokens",
        "kl/rejected": "the same of the rejected completions",
        "kl/margin": "mean difference of the two, chosen minus rejected",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    golden = {
        "tdpo1": {"=version": 1, "kl_chosen": "kl/chosen", "kl_rejected": "kl/rejected"},
        "tdpo2": {"=version": 2, "kl_chosen": "kl/chosen", "kl_rejected": "kl/rejected"},
    }

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        config = self.config
        logratios = policy.sum() - reference.sum()
        kl = policy.over_vocabulary(forward_kl, reference).sum(-1)
        chosen_kl, rejected_kl = batch.pairs(kl)
        if config.version == 1:
            losses = tdpo1_loss(*batch.pairs(logratios), chosen_kl, rejected_kl, config.beta)
        else:
            alpha = 0.5 if config.alpha is None else config.alpha
            losses = tdpo2_loss(*batch.pairs(logratios), chosen_kl, rejected_kl, config.beta, alpha)
        metrics = {
            **rewards_of_pairs(batch, config.beta * (logratios + kl), policy.sum()),
            "kl/chosen": chosen_kl,
            "kl/rejected": rejected_kl,
            "kl/margin": chosen_kl - rejected_kl,
        }
        return Loss([Term(losses, "pair")], metrics)

    def value_at_reference(self, batch: Batch) -> float:
        return math.log(2.0)
