"""Preference ranking optimisation, PRO (Song et al. 2023, arXiv 2306.17492)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Paper, Scores, Term, option
from xpo_zoo.logged import LIST_METRICS, rewards_of_lists
from xpo_zoo.ranking import beats, ranks, scored, tied


def pro_loss(p: Tensor, scores: Tensor, real: Tensor) -> Tensor:
    """sum over k of log( e^(p_k T_k) + sum over i below k of e^(p_i (r_k - r_i)) ) - p_k T_k,  T_k = max (r_k - r_i).

    Each completion is told from all with a lower score, at temperatures that are gaps of the scores. Equal scores
    would leave a constant in the sum; they are left out.

    Args: (G, K) average log-probabilities p, scores r, and where there is a completion.
    Returns: (G,) sums over k.
    """
    below = beats(scores, real)
    gaps = (scores[:, :, None] - scores[:, None, :]).masked_fill(~below, 0.0)
    own = p * gaps.amax(-1)
    others = (p[:, None, :] * gaps).masked_fill(~below, -math.inf)
    return (torch.cat([own[:, :, None], others], -1).logsumexp(-1) - own).sum(-1)


@dataclass
class PROConfig(Config):
    """Settings of PRO."""

    sft_weight: float = option(
        0.05, "weight of the NLL of the best completion, a sum over its tokens, times (K - 1)^2 for K completions"
    )

    def __post_init__(self) -> None:
        self.require(self.sft_weight >= 0, f"sft_weight must not be negative, not {self.sft_weight}")


class PRO(Algorithm[PROConfig]):
    """The best of a list against the rest, then the second against what is left; no reference model.

    The gaps of the scores are temperatures: keep the scale of the scores from run to run.
    """

    name = "pro"
    summary = "iterated softmax contrast of a scored list, with score gaps as temperatures, and NLL of its best"
    paper = Paper("Preference Ranking Optimization for Human Alignment", "https://arxiv.org/abs/2306.17492", 2023)
    equation = (
        "L = mean over prompts of sum over k of [ log(e^(p_k T_k) + sum over i > k of e^(p_i (r_k - r_i))) - p_k T_k ]"
        " - sft_weight (K - 1)^2 log pi(y_best|x),  T_k = max over i > k of r_k - r_i,  p = log pi(y|x) / |y|"
    )
    data = "lists"
    needs = Needs(scores=True)
    Config = PROConfig
    metrics = {
        **LIST_METRICS,
        "logps/best": "mean average log-probability of the best-scored completions",
        "logps/worst": "the same of the worst-scored ones",
        "nll_loss": "mean NLL of the best-scored completion, a sum over its tokens",
    }
    training = {"learning_rate": 5e-6}
    lora_training = {"learning_rate": 5e-5}
    raises = ("best",)
    lowers = ("worst",)
    golden = {"pro": {}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        return scored(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        average = policy.mean()
        scores, real = batch.lists(batch.scores), batch.slots[1]
        without_order = tied(scores, real)
        best = ranks(scores, real) == 1  # the first of several
        nll = (batch.lists(-policy.sum()) * best).sum(-1).masked_fill(without_order, 0.0)
        terms = [Term(pro_loss(batch.lists(average), scores, real), "group")]
        if self.config.sft_weight:
            sizes = (real.sum(-1) - 1).square()
            terms.append(Term(sizes * nll, "group", weight=self.config.sft_weight, name="sft"))
        metrics = rewards_of_lists(batch, average, average)
        metrics["nll_loss"] = nll.detach()[~without_order]
        return Loss(terms, metrics)
