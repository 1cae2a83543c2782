"""Triple preference optimisation and its length-controlled TPO-L (Saeidi et al. 2024, arXiv 2405.16681)."""

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
    DataError,
    Group,
    Loss,
    Paper,
    Scores,
    Term,
    nll,
    option,
    rewards_of_pairs,
)
from xpo.api.math import softplus


def tpo_loss(chosen_logps: Tensor, rejected_logps: Tensor, beta: float, gamma: float = 0.0) -> Tensor:
    """-log sigmoid(beta (log pi(y_w|x) - log pi(y_l|x)) - gamma), the preference term of TPO.

    Args: two (P,) log-probabilities: sums over the tokens of a completion, or averages for TPO-L.
    Returns: (P,) losses.
    """
    return softplus(gamma - beta * (chosen_logps - rejected_logps))


@dataclass
class TPOConfig(Config):
    """Settings of TPO."""

    beta: float = option(0.01, "scale of the difference of log-probabilities; about 10 with length_normalize")
    nll_weight: float = option(1.0, "weight of the NLL on the gold completions; about 0.05 with length_normalize")
    nll: str = option("token", "NLL: the mean over the 'token's of a step, or over 'sequence's of their mean or 'sum'")
    length_normalize: bool = option(False, "compare averages over tokens instead of sums: TPO-L")
    gamma: float = option(0.0, "target margin, in the units of the scaled difference; 0.5 for TPO-L")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.nll_weight >= 0, f"nll_weight must not be negative, not {self.nll_weight}")
        self.require(self.nll in NLL, f"nll must be one of {', '.join(NLL)}, not {self.nll!r}")


class TPO(Algorithm[TPOConfig]):
    """A preference between two completions, and imitation of a third, better one."""

    name = "tpo"
    summary = "preference of the chosen completion, with an NLL on a third, gold completion"
    paper = Paper("Triple Preference Optimization", "https://arxiv.org/abs/2405.16681", 2024)
    equation = (
        "L = mean over pairs of -log sigmoid(beta (S_w - S_l) - gamma) + nll_weight NLL(y_gold),  "
        "S = log pi(y|x), divided by |y| with length_normalize"
    )
    data = "pairs"
    extras = {"gold": ("gold", "reference")}
    Config = TPOConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean beta S of the chosen completions",
        "rewards/rejected": "mean beta S of the rejected completions",
        "logps/chosen": "mean S of the chosen completions: sums over tokens, averages with length_normalize",
        "logps/rejected": "the same of the rejected completions",
        "nll_loss": "NLL of the gold completions, averaged as the setting nll says",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("chosen", "gold")
    lowers = ("rejected",)
    aliases = {"tpo_alpha": "nll_weight", "tpo_l_gamma": "gamma"}
    golden = {"tpo": {"alpha": "nll_weight"}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        """Make sure of the gold completions, or leave them out where they have no weight."""
        if self.config.nll_weight == 0:
            return [
                replace(group, completions=[one for one in group.completions if one.role != "gold"]) for group in groups
            ]
        for group in groups:
            if all(one.role != "gold" for one in group.completions):
                raise DataError(
                    f"row {group.row} has no gold completion, which tpo imitates: give every row a column 'gold' (or "
                    "'reference'), set --nll_weight 0, or use --algo cpo, which imitates the chosen completion"
                )
        return list(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        config = self.config
        logps = policy.mean() if config.length_normalize else policy.sum()
        losses = tpo_loss(*batch.pairs(logps), config.beta, config.gamma)
        term, items = nll(batch, policy, "gold", weight=config.nll_weight, per=config.nll)
        metrics = {**rewards_of_pairs(batch, config.beta * logps, logps), "nll_loss": items}
        return Loss([Term(losses, "pair"), term], metrics)
