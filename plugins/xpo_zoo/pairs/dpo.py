"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from xpo import PAIR_METRICS, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option, rewards_of_pairs
from xpo.api.math import smoothed


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    reference_chosen_logps: Tensor,
    reference_rejected_logps: Tensor,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log sigmoid(beta [(log pi_w - log ref_w) - (log pi_l - log ref_l)]), eq. 7 of the paper.

    Args: four (P,) log-probabilities, each summed over the tokens of a completion.
    Returns: (P,) losses; ln 2 each where the policy equals the reference. With ``label_smoothing`` e this is cDPO
        (Mitchell 2023): labels flipped with probability e, minimum at a margin of log((1 - e) / e).
    """
    chosen_logratios = policy_chosen_logps - reference_chosen_logps
    rejected_logratios = policy_rejected_logps - reference_rejected_logps
    return smoothed(beta * (chosen_logratios - rejected_logratios), label_smoothing)


def token_credit(
    logps: Sequence[Sequence[float]], ref_logps: Sequence[Sequence[float]], *, beta: float
) -> Mapping[str, list[float] | list[list[float]]]:
    """beta (log pi - log ref) of each token: what it adds to the implicit reward, and its advantage (arXiv 2404.12358).

    Args: log-probabilities of the tokens of some completions under the policy, and under the reference.
    Returns: ``credit`` of each token, and ``sequence_reward`` of each completion, which is their sum.
    """
    credit = [
        [beta * (own - theirs) for own, theirs in zip(*rows, strict=True)]
        for rows in zip(logps, ref_logps, strict=True)
    ]
    return {"credit": credit, "sequence_reward": [sum(row) for row in credit]}


@dataclass
class DPOConfig(Config):
    """Settings of DPO."""

    beta: float = option(0.1, "strength of the tie to the reference; higher stays closer to it (0.01 to 0.5)")
    label_smoothing: float = option(0.0, "probability that a label is flipped (cDPO), in [0, 0.5)")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(
            0 <= self.label_smoothing < 0.5, f"label_smoothing must be in [0, 0.5), not {self.label_smoothing}"
        )


class DPO(Algorithm[DPOConfig]):
    """Logistic regression on the margin of log-ratios: the policy is its own reward model."""

    name = "dpo"
    summary = "logistic loss on the difference of log-ratios to a reference"
    paper = Paper("Direct Preference Optimization", "https://arxiv.org/abs/2305.18290", 2023)
    equation = (
        "L = mean over pairs of -log sigmoid(beta (R_w - R_l)),  R = log pi(y|x) - log ref(y|x), sums over tokens"
    )
    data = "pairs"
    needs = Needs(reference=True)
    Config = DPOConfig
    metrics = PAIR_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen",)
    lowers = ("rejected",)
    accepts = {"loss_type": "sigmoid", "f_divergence_type": "reverse_kl"}
    golden = {"dpo": {}, "cdpo": {}}
    functions = {"token_credit": token_credit}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        policy_chosen, policy_rejected = batch.pairs(policy.sum())
        reference_chosen, reference_rejected = batch.pairs(reference.sum())
        losses = dpo_loss(
            policy_chosen,
            policy_rejected,
            reference_chosen,
            reference_rejected,
            self.config.beta,
            self.config.label_smoothing,
        )
        rewards = self.config.beta * (policy.sum() - reference.sum())
        return Loss([Term(losses, "pair")], rewards_of_pairs(batch, rewards, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float:
        return math.log(2.0)
