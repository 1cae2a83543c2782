"""Length-regularised DPO (Park et al. 2024, arXiv 2403.19159)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import softplus


def r_dpo_loss(margins: Tensor, surplus: Tensor, beta: float, alpha: float) -> Tensor:
    """-log sigmoid(beta D + alpha (|w| - |l|)), eq. 9 of the paper.

    The reward that explains a preference is the log-ratio less a cost of length, so a chosen completion that is longer
    explains part of the preference already and pulls less: the sign before alpha is a plus.

    Args: (P,) margins D, the difference of the log-ratios, and (P,) tokens by which the chosen completion is longer.
    Returns: (P,) losses; softplus(-alpha (|w| - |l|)) where the policy equals the reference.
    """
    return softplus(-(beta * margins + alpha * surplus))


@dataclass
class RDPOConfig(Config):
    """Settings of R-DPO."""

    beta: float = option(0.1, "strength of the tie to the reference; higher stays closer to it (0.01 to 0.1)")
    alpha: float = option(
        0.05, "cost of a token (0.005 to 1), which meets a difference of whole lengths: at 0.5, 100 tokens are 50 nats"
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.alpha >= 0, f"alpha must not be negative, not {self.alpha}")


class RDPO(Algorithm[RDPOConfig]):
    """DPO that does not take length for quality."""

    name = "r_dpo"
    summary = "DPO with a cost of length taken out of what the margin must explain"
    paper = Paper(
        "Disentangling Length from Quality in Direct Preference Optimization", "https://arxiv.org/abs/2403.19159", 2024
    )
    equation = (
        "L = mean over pairs of -log sigmoid(beta (R_w - R_l) + alpha (|w| - |l|)),  R = log pi(y|x) - log ref(y|x)"
    )
    data = "pairs"
    needs = Needs(reference=True)
    Config = RDPOConfig
    metrics = {
        **PAIR_METRICS,
        "length/chosen_longer": "share of pairs whose chosen completion has more tokens",
        "length/regulariser": "mean alpha (|w| - |l|); it dominates where it is larger than rewards/margins",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    golden = {"r_dpo": {}}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logratios = policy.sum() - reference.sum()
        chosen, rejected = batch.pairs(logratios)
        surplus = _surplus(batch).to(logratios.dtype)
        losses = r_dpo_loss(chosen - rejected, surplus, self.config.beta, self.config.alpha)
        metrics = {
            **rewards_of_pairs(batch, self.config.beta * logratios, policy.sum()),
            "length/chosen_longer": (surplus > 0).to(logratios.dtype),
            "length/regulariser": self.config.alpha * surplus,
        }
        return Loss([Term(losses, "pair")], metrics)

    def value_at_reference(self, batch: Batch) -> float:
        return float(softplus(-self.config.alpha * _surplus(batch).double()).mean())


def _surplus(batch: Batch) -> Tensor:
    """(P,) tokens by which the chosen completion is longer."""
    chosen, rejected = batch.pairs(batch.lengths)
    return chosen - rejected
