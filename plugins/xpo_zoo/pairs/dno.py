"""Direct Nash optimisation (Rosset et al. 2024, arXiv 2404.03715)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import (
    PAIR_METRICS,
    Algorithm,
    Batch,
    Config,
    DataError,
    Group,
    Loss,
    Needs,
    Paper,
    Scores,
    Term,
    option,
    rewards_of_pairs,
)
from xpo.api.math import softplus


def dno_loss(margins: Tensor, targets: Tensor, eta: float) -> Tensor:
    """-p log sigmoid(z) - (1 - p) log sigmoid(-z) with z = eta D, eq. 9 of the paper.

    Args: (P,) margins D, the difference of the log-ratios to the previous iterate of two completions, and (P,)
        targets p, the probability that the first is preferred.
    Returns: (P,) losses, ln 2 each where the policy still is the previous iterate; lowest where sigmoid(z) is p.
    """
    return targets * softplus(-eta * margins) + (1.0 - targets) * softplus(eta * margins)


@dataclass
class DNOConfig(Config):
    """Settings of DNO."""

    eta: float = option(0.1, "strength of the tie to the previous iterate; higher stays closer to it")

    def __post_init__(self) -> None:
        self.require(self.eta > 0, f"eta must be positive, not {self.eta}")


class DNO(Algorithm[DNOConfig]):
    """DPO with soft labels: a pair that is nearly a tie is learned as one, and the reference is the previous iterate.

    ``score_chosen`` and ``score_rejected`` are expected win rates against the policy, or rewards; the label of a pair
    is the sigmoid of their difference, unless the column ``target`` says it. DNO-Prct, which the paper trains, takes
    1 for every label and keeps only pairs that are far apart: that is DPO, and the filter is the method.
    """

    name = "dno"
    summary = "logistic regression of log-ratios on the probability that one completion is preferred to the other"
    paper = Paper(
        "Direct Nash Optimization: Teaching Language Models to Self-Improve with General Preferences",
        "https://arxiv.org/abs/2404.03715",
        2024,
    )
    equation = (
        "L = mean over pairs of -p log sigmoid(z) - (1 - p) log sigmoid(-z),  z = eta (R_w - R_l),  "
        "R = log pi(y|x) - log ref(y|x), sums over tokens,  p = target, or sigmoid(s_w - s_l)"
    )
    data = "pairs"
    needs = Needs(reference=True, samples=5, wins="others")
    columns = ("target",)
    Config = DNOConfig
    metrics = {
        **PAIR_METRICS,
        "target": "mean probability, by the data, that the chosen completion is preferred",
        "target/policy": "the same by the policy, sigmoid(eta (R_w - R_l)); it heads for the target",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    aliases = {"beta": "eta"}
    golden = {"dno": {}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        """The groups as they are, once every pair is seen to have a target or two scores."""
        for group in groups:
            target = group.columns.get("target", math.nan)
            if target is not None and not math.isnan(target):
                if not 0.0 <= target <= 1.0:
                    raise DataError(f"row {group.row}: target is {target}; it must be a probability, between 0 and 1")
            elif any(group.completions[place].score is None for pair in group.pairs for place in pair):
                raise DataError(
                    f"row {group.row}: dno needs to know how much better the chosen completion is. Give the columns "
                    "score_chosen and score_rejected (win rates or rewards), or target (the probability that chosen is "
                    "preferred); for pairs that have neither there is --algo dpo"
                )
        return list(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        eta, logratios = self.config.eta, policy.sum() - reference.sum()
        chosen, rejected = batch.pairs(logratios)
        targets, margins = _targets(batch), chosen - rejected
        metrics = rewards_of_pairs(batch, eta * logratios, policy.sum())
        metrics["target"], metrics["target/policy"] = targets, torch.sigmoid(eta * margins)
        return Loss([Term(dno_loss(margins, targets, eta), "pair")], metrics)

    def value_at_reference(self, batch: Batch) -> float:
        return math.log(2.0)


def _targets(batch: Batch) -> Tensor:
    """(P,) probability that the chosen completion of each pair is preferred."""
    chosen, rejected = batch.pairs(batch.scores)
    probabilities = torch.sigmoid(chosen - rejected)
    if "target" not in batch.group_columns:
        return probabilities
    told = batch.group_columns["target"][batch.group[batch.chosen]]
    return torch.where(told.isnan(), probabilities, told)
