"""Listwise preference optimisation with lambda weights, LiPO-λ (Liu et al. 2024, arXiv 2402.01878)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, DataError, Group, Loss, Needs, Paper, Scores, Term, option
from xpo.api.math import softplus
from xpo_zoo.logged import LIST_METRICS, rewards_of_lists
from xpo_zoo.ranking import beats, ranks, scored, tied

#: Highest label taken as it is: its gain is a thousand times that of a label of 1.
HIGHEST = 10.0


def gains(labels: Tensor) -> Tensor:
    """G = 2^psi - 1."""
    return torch.expm1(labels * math.log(2.0))


def lambda_weights(labels: Tensor, places: Tensor) -> Tensor:
    """|G_i - G_j| |1 / D(tau(i)) - 1 / D(tau(j))|,  D(tau) = ln(1 + tau): what swapping i and j changes of the DCG.

    Args: (G, K) labels psi and ranks tau from 1, those of the *model's* scores.
    Returns: (G, K, K) weights, which carry no gradient.
    """
    gain, discount = gains(labels), 1.0 / torch.log1p(places.to(labels.dtype))
    return (gain[:, :, None] - gain[:, None, :]).abs() * (discount[:, :, None] - discount[:, None, :]).abs()


def lipo_loss(s: Tensor, weights: Tensor, better: Tensor) -> Tensor:
    """sum over psi_i > psi_j of Delta_ij log(1 + e^-(s_i - s_j)).

    The paper prints a minus sign before the sum; minimising that would turn the ranking round.

    Args: (G, K) s = beta (log pi - log ref) summed over tokens, (G, K, K) weights, and where psi_i > psi_j.
    Returns: (G,) losses: sums over pairs, divided neither by their number nor by the best possible DCG.
    """
    return (weights * softplus(s[:, None, :] - s[:, :, None])).masked_fill(~better, 0.0).sum((1, 2))


def _weights_by_hand(scores: Sequence[Sequence[float]], labels: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Ranks and weights of lists of several lengths, ties by index."""
    found: dict[str, Any] = {"ranks": [], "weights": []}
    for row, psi in zip(scores, labels, strict=True):
        values = torch.tensor([row], dtype=torch.float64)
        places = ranks(values, torch.ones_like(values, dtype=torch.bool))
        found["ranks"] += places.tolist()
        found["weights"] += lambda_weights(torch.tensor([psi], dtype=torch.float64), places).tolist()
    return found


@dataclass
class LiPOConfig(Config):
    """Settings of LiPO-λ."""

    beta: float = option(0.05, "strength of the tie to the reference (0.05 to 0.5)")
    label_scale: str = option(
        "none",
        "what makes labels psi of the scores: 'none' takes them as they are, best within [0, 1]; 'sigmoid' suits a "
        "reward model's; 'prompt' stretches each list to [0, 1]",
    )
    ties: str = option(
        "random",
        "who comes first where the model scores completions alike, as it does all of them at the first step: 'random', "
        "the same for a row at every step, or 'index', the order of the data",
    )

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(
            self.label_scale in ("none", "sigmoid", "prompt"),
            f"label_scale must be 'none', 'sigmoid' or 'prompt', not {self.label_scale!r}",
        )
        self.require(self.ties in ("random", "index"), f"ties must be 'random' or 'index', not {self.ties!r}")


class LiPO(Algorithm[LiPOConfig]):
    """DPO on every pair of a list, each weighted by how much it matters for the top of the list."""

    name = "lipo"
    summary = "logistic loss on all pairs of a scored list, weighted by what swapping them changes of the DCG"
    paper = Paper(
        "LiPO: Listwise Preference Optimization through Learning-to-Rank", "https://arxiv.org/abs/2402.01878", 2024
    )
    equation = (
        "L = mean over prompts of sum over psi_i > psi_j of Delta_ij softplus(-(s_i - s_j)),  s = beta R,  "
        "Delta_ij = |2^psi_i - 2^psi_j| |1/ln(1 + rank_i) - 1/ln(1 + rank_j)|, ranks by s"
    )
    data = "lists"
    needs = Needs(reference=True, scores=True)
    Config = LiPOConfig
    metrics = {
        **LIST_METRICS,
        "ndcg": "mean DCG of the model's order over the best possible, over lists whose scores differ",
        "lambda_weight": "mean weight of a pair",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    raises = ("best",)
    lowers = ("worst",)
    golden = {"lipo_lambda": {"=ties": "index"}}
    functions = {"lipo_weights": _weights_by_hand}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        """Refuse what would explode: a score of 30 would count as 2^30."""
        found = scored(groups)
        for group in found:
            highest = max((completion.score or 0.0 for completion in group.completions), default=0.0)
            if self.config.label_scale == "none" and highest > HIGHEST:
                raise DataError(
                    f"row {group.row}: the column scores holds {highest:g}, which lipo would weigh as 2^{highest:g}; "
                    "its labels lie in [0, 1]: add --label_scale sigmoid or --label_scale prompt"
                )
        return found

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        rewards = self.config.beta * (policy.sum() - reference.sum())
        s, real = batch.lists(rewards), batch.slots[1]
        labels = self._labels(batch)
        better, places = beats(labels, real), self._places(batch, s)
        weights = lambda_weights(labels, places)
        metrics = rewards_of_lists(batch, rewards, policy.sum())
        metrics |= {"lambda_weight": weights[better], "ndcg": _ndcg(labels, places, real)}
        return Loss([Term(lipo_loss(s, weights, better), "group")], metrics)

    def value_at_reference(self, batch: Batch) -> float | None:
        """ln 2 times the sum of the weights of a list, all of whose ranks are ties."""
        labels, s = self._labels(batch), torch.zeros_like(batch.lists(batch.scores))
        weights = lambda_weights(labels, self._places(batch, s))
        return float(lipo_loss(s, weights, beats(labels, batch.slots[1])).mean())

    def _labels(self, batch: Batch) -> Tensor:
        """(G, K) psi."""
        scores, real = batch.lists(batch.scores), batch.slots[1]
        if self.config.label_scale == "sigmoid":
            return torch.sigmoid(scores)
        if self.config.label_scale == "none":
            return scores
        low = scores.masked_fill(~real, math.inf).amin(-1, keepdim=True)
        high = scores.masked_fill(~real, -math.inf).amax(-1, keepdim=True)
        spread = torch.where(high > low, high - low, 1.0)
        return ((scores - low) / spread).masked_fill(~real, 0.0)

    def _places(self, batch: Batch, s: Tensor) -> Tensor:
        """(G, K) ranks of the model's scores. Ties never follow the data by default: it often comes best first."""
        real = batch.slots[1]
        if self.config.ties == "index":
            return ranks(s, real)
        width = s.shape[-1]
        orders = [
            [*random.Random(group.row).sample(range(size), size), *range(size, width)]
            for group, size in zip(batch.groups, real.sum(-1).tolist(), strict=True)
        ]
        return ranks(s, real, torch.tensor(orders, device=s.device).reshape(s.shape))


def _ndcg(labels: Tensor, places: Tensor, real: Tensor) -> Tensor:
    gain = gains(labels).masked_fill(~real, 0.0)
    found, best = ((gain / torch.log1p(place.to(gain.dtype))).sum(-1) for place in (places, ranks(labels, real)))
    counted = ~tied(labels, real) & (best > 0)
    return found[counted] / best[counted]
