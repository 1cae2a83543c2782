"""Odds ratio preference optimisation (Hong et al. 2024, arXiv 2403.07691)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from xpo import (
    NLL,
    PAIR_METRICS,
    Algorithm,
    Batch,
    Completion,
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
from xpo.api.math import log1mexp, logsigmoid


def log_odds_ratio(chosen_average_logps: Tensor, rejected_average_logps: Tensor) -> Tensor:
    """log [odds(y_w|x) / odds(y_l|x)] with odds = p / (1 - p) and p = exp(A), eq. 4 and 7 of the paper.

    Args: two (P,) log-probabilities A averaged over the tokens of a completion. Averages: with sums p underflows and
        the odds are p itself.
    Returns: (P,) log odds ratios; the loss is -log sigmoid of them.
    """
    chosen, rejected = (log1mexp(_below_one(average)) for average in (chosen_average_logps, rejected_average_logps))
    return (chosen_average_logps - rejected_average_logps) - (chosen - rejected)


def _below_one(average_logps: Tensor) -> Tensor:
    # The odds of a completion known by heart are infinite, and so is their slope 1 / (1 - p). One step of the number
    # format below certainty (1e-7 in float32) both are finite; beyond it the odds stay what they are there.
    return average_logps.clamp_max(-torch.finfo(average_logps.dtype).eps)


@dataclass
class ORPOConfig(Config):
    """Settings of ORPO."""

    lambda_: float = option(0.1, "weight of the odds ratio beside the NLL (0.1 to 2)")
    nll: str = option("token", "NLL: the mean over the 'token's of a step, or over 'sequence's of their mean or 'sum'")
    nll_include_prompt: bool = option(
        False, "let the NLL cover the prompt of the chosen completion too, as the paper's numbers do"
    )

    def __post_init__(self) -> None:
        self.require(self.lambda_ >= 0, f"lambda_ must not be negative, not {self.lambda_}")
        self.require(self.nll in NLL, f"nll must be one of {', '.join(NLL)}, not {self.nll!r}")


class ORPO(Algorithm[ORPOConfig]):
    """Supervised fine-tuning and preference in one stage: likelihood of the winner, and odds against the loser."""

    name = "orpo"
    summary = "supervised fine-tuning with an odds ratio against the rejected completion, in one stage"
    paper = Paper(
        "ORPO: Monolithic Preference Optimization without Reference Model", "https://arxiv.org/abs/2403.07691", 2024
    )
    equation = (
        "L = NLL(y_w) + lambda mean over pairs of -log sigmoid(log odds(y_w|x) - log odds(y_l|x)),  "
        "log odds = A - log(1 - exp(A)),  A = log pi(y|x) / |y|"
    )
    data = "pairs"
    Config = ORPOConfig
    metrics = {
        **PAIR_METRICS,
        "rewards/chosen": "mean lambda A of the chosen completions",
        "rewards/rejected": "mean lambda A of the rejected completions",
        "logps/chosen": "mean over pairs of the average log-probability a token of the chosen completion",
        "logps/rejected": "the same of the rejected completion",
        "log_odds_ratio": "mean log sigmoid of the log odds ratio: minus the odds term of the loss",
        "log_odds_chosen": "mean log odds ratio; above 0 where the chosen completions have the better odds",
        "nll_loss": "NLL of the chosen completions, averaged as the setting nll says",
    }
    training = {"learning_rate": 5e-6}
    lora_training = {"learning_rate": 5e-5}
    raises = ("chosen",)
    lowers = ("rejected",)
    aliases = {"beta": "lambda_", "lambda": "lambda_"}
    golden = {"orpo": {"beta": "lambda_"}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        """Add the prompt as something to score, where the NLL covers it."""
        if not self.config.nll_include_prompt:
            return list(groups)
        return [
            replace(
                group,
                # The first token has nothing to be predicted from.
                completions=[*group.completions, Completion(list(group.prompt_ids[1:]), role="chosen_prompt", after=1)],
            )
            for group in groups
        ]

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        average = policy.mean()
        ratios = log_odds_ratio(*batch.pairs(average))
        log_sigmoids = logsigmoid(ratios)
        term, items = self._nll(batch, policy)
        metrics = {
            **rewards_of_pairs(batch, self.config.lambda_ * average, average),
            "log_odds_ratio": log_sigmoids,
            "log_odds_chosen": ratios,
            "nll_loss": items,
        }
        return Loss([Term(-log_sigmoids, "pair", weight=self.config.lambda_), term], metrics)

    def _nll(self, batch: Batch, policy: Scores) -> tuple[Term, Tensor]:
        per = self.config.nll
        if not self.config.nll_include_prompt:
            return nll(batch, policy, "chosen", per=per)
        if per == "token":
            return nll(batch, policy, ("chosen", "chosen_prompt"))
        # The prompt and its completion are one sequence.
        chosen, prompt = batch.where("chosen"), batch.where("chosen_prompt")
        logps = policy.sum()
        values = -(logps[chosen] + logps[prompt])
        if per == "sequence":
            values = values / (batch.lengths[chosen] + batch.lengths[prompt])
        return Term(values, "completion", over="chosen", name="nll"), values.detach()
