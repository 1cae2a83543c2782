"""Rank responses to align with human feedback, RRHF (Yuan et al. 2023, arXiv 2304.05302)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Paper, Scores, Term, option
from xpo_zoo.logged import LIST_METRICS, rewards_of_lists
from xpo_zoo.ranking import beats, ranks, scored, tied


def rrhf_loss(p: Tensor, better: Tensor) -> Tensor:
    """sum over r_i < r_j of max(0, p_i - p_j), eq. 2 of the paper.

    Args: (G, K) length-normalised log-probabilities p, (G, K, K) True where completion i scores higher than j.
    Returns: (G,) sums over pairs, a hinge without margin.
    """
    return torch.relu(p[:, None, :] - p[:, :, None]).masked_fill(~better, 0.0).sum((1, 2))


@dataclass
class RRHFConfig(Config):
    """Settings of RRHF."""

    rank_weight: float = option(1.0, "weight of the ranking term beside the NLL of the best completion")
    length_penalty: float = option(1.0, "power of the length by which log-probabilities are divided; 1 averages them")
    length: str = option(
        "response",
        "that length: 'response', the tokens of the completion as in the paper, or 'padded', the column padded_length "
        "or else the longest of prompt and completion in the list, as in the authors' code",
    )
    sft: str = option(
        "sum",
        "NLL of the best completion: 'sum' over its tokens as in the paper, 'mean' over them, or 'padded', over the "
        "padded length as in the authors' code",
    )

    def __post_init__(self) -> None:
        self.require(self.rank_weight >= 0, f"rank_weight must not be negative, not {self.rank_weight}")
        self.require(
            self.length in ("response", "padded"), f"length must be 'response' or 'padded', not {self.length!r}"
        )
        self.require(self.sft in ("sum", "mean", "padded"), f"sft must be 'sum', 'mean' or 'padded', not {self.sft!r}")


class RRHF(Algorithm[RRHFConfig]):
    """Rank by average log-probability with a hinge, and imitate the best; no reference model."""

    name = "rrhf"
    summary = "zero-margin hinge on the average log-probabilities of a scored list, and NLL of its best completion"
    paper = Paper(
        "RRHF: Rank Responses to Align Language Models with Human Feedback without tears",
        "https://arxiv.org/abs/2304.05302",
        2023,
    )
    equation = (
        "L = mean over prompts of rank_weight sum over r_i < r_j of max(0, p_i - p_j) - log pi(y_best|x),  "
        "p = log pi(y|x) / |y|"
    )
    data = "lists"
    needs = Needs(scores=True)
    Config = RRHFConfig
    metrics = {
        **LIST_METRICS,
        "logps/best": "mean length-normalised log-probability of the best-scored completions",
        "logps/worst": "the same of the worst-scored ones",
        "nll_loss": "mean NLL of the best-scored completion, as the loss reads it",
    }
    training = {"learning_rate": 2e-5}
    lora_training = {"learning_rate": 2e-4}
    raises = ("best",)
    lowers = ("worst",)
    aliases = {"rrhf_weight": "rank_weight"}
    golden = {"rrhf": {}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        return scored(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        config, logps = self.config, policy.sum()
        own, padded = policy.lengths.to(logps.dtype), self._padded(batch, logps)[batch.group]
        lengths = {"response": own, "mean": own, "padded": padded, "sum": torch.ones_like(own)}
        p = logps / lengths[config.length] ** config.length_penalty
        scores, real = batch.lists(batch.scores), batch.slots[1]
        ranking = rrhf_loss(batch.lists(p), beats(scores, real))
        best = ranks(scores, real) == 1  # the first of several
        without_order = tied(scores, real)
        nll = (batch.lists(-logps / lengths[config.sft]) * best).sum(-1).masked_fill(without_order, 0.0)
        terms = [
            Term(ranking, "group", weight=config.rank_weight, name="rank"),
            Term(nll, "group", name="sft"),
        ]
        metrics = rewards_of_lists(batch, p, p)
        metrics["nll_loss"] = nll.detach()[~without_order]
        return Loss(terms, metrics)

    @staticmethod
    def _padded(batch: Batch, like: Tensor) -> Tensor:
        """(G,) length of a list's rows in a batch of their own: the authors train on one prompt a device."""
        own = like.new_tensor([float(group.length) for group in batch.groups])
        given = batch.group_columns.get("padded_length")
        return own if given is None else torch.where(given.isnan(), own, given.to(own.dtype))
