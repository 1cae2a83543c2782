"""Reward ranked fine-tuning, best of n (Dong et al. 2023, arXiv 2304.06767)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from xpo import NLL, Algorithm, Batch, Config, Loss, Needs, Paper, Scores, Term, option


def best_of(rewards: Tensor) -> Tensor:
    """(G, K) 1 at the highest of each row, the first of equals, and 0 elsewhere."""
    return one_hot(rewards.argmax(-1), rewards.shape[-1])


@dataclass
class RAFTConfig(Config):
    """Settings of RAFT."""

    nll: str = option("token", "NLL: the mean over the 'token's of a step, or over 'sequence's of their mean or 'sum'")

    def __post_init__(self) -> None:
        self.require(self.nll in NLL, f"nll must be one of {', '.join(NLL)}, not {self.nll!r}")


class RAFT(Algorithm[RAFTConfig]):
    """Of the samples of each prompt the best is imitated, and the others are forgotten.

    Nothing ties the policy to where it began: keep the learning rate small, or learn demonstrations beside.
    """

    name = "raft"
    summary = "negative log-likelihood of the best of the samples of every prompt"
    paper = Paper(
        "RAFT: Reward rAnked FineTuning for Generative Foundation Model Alignment",
        "https://arxiv.org/abs/2304.06767",
        2023,
    )
    equation = "L = mean over the tokens of the selected completions of -log pi(y_t|x, y_<t),  y = argmax_k r(x, y_k)"
    data = "rollouts"
    needs = Needs(samples=8, ratios=False)
    Config = RAFTConfig
    metrics = {
        "nll_loss": "NLL of the selected completions, averaged as the setting nll says",
        "reward/best": "mean reward of the selected completions",
        "length/best": "mean tokens of the selected completions",
        "logps": "mean log-probability of the selected completions",
    }
    training = {"learning_rate": 2e-5}
    lora_training = {"learning_rate": 2e-4}
    raises = ("best",)
    golden = {"raft": {}}

    def experience(self, batch: Batch, policy: Scores, reference: Scores | None) -> Mapping[str, Tensor]:
        """The weight of each completion: 0, or what makes a mean over all completions one over those selected."""
        best = best_of(batch.lists(batch.scores, fill=-torch.inf)).to(batch.scores.dtype)
        selected = batch.unlists(best)
        items = batch.lengths.to(selected.dtype) if self.config.nll == "token" else torch.ones_like(selected)
        mine = torch.stack([items.sum(), (items * selected).sum()])
        everything, kept = batch.reduce(torch.zeros_like(mine) if batch.idle else mine)
        return {"selected": selected, "weight": selected * everything / kept.clamp_min(1.0)}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        chosen, weight = batch.columns["selected"] > 0, batch.columns["weight"]
        if self.config.nll == "token":
            losses, items = -policy.logps, -policy.logps[chosen][batch.mask[chosen]]
            term = Term(weight[:, None] * losses, "token")
        else:
            losses = -(policy.mean() if self.config.nll == "sequence" else policy.sum())
            items, term = losses[chosen], Term(weight * losses, "completion")
        metrics = {
            "nll_loss": items.detach(),
            "reward/best": batch.scores[chosen],
            "length/best": batch.lengths[chosen].to(weight.dtype),
            "logps": policy.sum()[chosen].detach(),
        }
        return Loss([term], metrics)
