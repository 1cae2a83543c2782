"""SLiC-HF, sequence likelihood calibration with human feedback (Zhao et al. 2023, arXiv 2305.10425)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from xpo import (
    NLL,
    PAIR_METRICS,
    Algorithm,
    Batch,
    Config,
    Group,
    Loss,
    Paper,
    Scores,
    Term,
    nll,
    option,
    rewards_of_pairs,
)


def slic_hf_loss(chosen_logps: Tensor, rejected_logps: Tensor, delta: float) -> Tensor:
    """max(0, delta - log pi(y_w|x) + log pi(y_l|x)), the calibration term of eq. 1.

    Args: two (P,) log-probabilities summed over the tokens of a completion; no reference is subtracted.
    Returns: (P,) losses, one a pair and never one a token; 0 once the pair is delta nats apart.
    """
    return (delta - chosen_logps + rejected_logps).clamp_min(0.0)


@dataclass
class SLiCHFConfig(Config):
    """Settings of SLiC-HF."""

    delta: float = option(1.0, "margin in nats of summed log-probability, so it weighs length (0.1 to 2)")
    lambda_: float = option(0.1, "weight of the NLL on the target (0.1 to 10)")
    nll: str = option(
        "sum", "NLL of a target: 'sum' over its tokens, their mean by 'sequence', or by 'token' of a step"
    )

    def __post_init__(self) -> None:
        self.require(self.delta >= 0, f"delta must not be negative, not {self.delta}")
        self.require(self.lambda_ >= 0, f"lambda_ must not be negative, not {self.lambda_}")
        self.require(self.nll in NLL, f"nll must be one of {', '.join(NLL)}, not {self.nll!r}")


class SLiCHF(Algorithm[SLiCHFConfig]):
    """A hinge on raw sequence likelihoods, held in place by likelihood of a target text."""

    name = "slic_hf"
    summary = "hinge on the difference of log-probabilities, with an NLL on a target text"
    paper = Paper(
        "SLiC-HF: Sequence Likelihood Calibration with Human Feedback", "https://arxiv.org/abs/2305.10425", 2023
    )
    equation = (
        "L = mean over pairs of max(0, delta - S_w + S_l) + lambda NLL(target),  S = log pi(y|x), a sum over tokens; "
        "the target is the gold completion where the data has one, else the chosen one"
    )
    data = "pairs"
    extras = {"gold": ("gold", "target", "reference")}
    Config = SLiCHFConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean log-probability of the chosen completions, which is what the hinge compares",
        "rewards/rejected": "the same of the rejected completions",
        "calibration": "mean hinge of the pairs",
        "nll_loss": "NLL of the targets, averaged as the setting nll says",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen", "gold")
    lowers = ("rejected",)
    aliases = {"lambda": "lambda_"}
    golden = {"slic_hf": {"lambda": "lambda_", "target": "gold"}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        """Where some rows of a step have a gold completion, the chosen one is the target of the others."""
        has_gold = [any(one.role == "gold" for one in group.completions) for group in groups]
        if not any(has_gold):
            return list(groups)
        return [group if gold else _imitating_the_chosen(group) for group, gold in zip(groups, has_gold, strict=True)]

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        logps = policy.sum()
        losses = slic_hf_loss(*batch.pairs(logps), self.config.delta)
        target = "gold" if "gold" in batch.roles else "chosen"
        term, items = nll(batch, policy, target, weight=self.config.lambda_, per=self.config.nll)
        metrics = {**rewards_of_pairs(batch, logps, logps), "calibration": losses, "nll_loss": items}
        return Loss([Term(losses, "pair"), term], metrics)


def _imitating_the_chosen(group: Group) -> Group:
    targets = [replace(one, role="gold") for one in group.completions if one.role == "chosen"]
    return replace(group, completions=[*group.completions, *targets])
