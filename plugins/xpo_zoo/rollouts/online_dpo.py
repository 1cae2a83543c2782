"""Online DPO, or direct alignment from online AI feedback (OAIF; Guo et al. 2024, arXiv 2402.04792)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from xpo import (
    PAIR_METRICS,
    Algorithm,
    Batch,
    Config,
    Loss,
    Needs,
    Paper,
    Scores,
    SettingError,
    Term,
    option,
    rewards_of_pairs,
)
from xpo.api.math import softplus
from xpo.feedback.opinions import judge_average, rlaif_debias
from xpo_zoo.pairs.ipo import ipo_loss

LOSS_TYPES = ("sigmoid", "ipo")


def preference_loss(margins: Tensor, beta: float, loss_type: str) -> Tensor:
    """-log sigmoid(beta D), or (D - 1 / (2 beta))^2 of IPO, here with sums over tokens as in TRL.

    Args: (n,) margins D, the difference of the log-ratios of the preferred completion and of the other.
    Returns: (n,) losses; at D = 0 they are ln 2, or 1 / (4 beta^2).
    """
    return softplus(-beta * margins) if loss_type == "sigmoid" else ipo_loss(margins, beta)


def best_and_worst(batch: Batch) -> tuple[Tensor, Tensor]:
    """(G,) indices of the completion of each group with the highest score and of that with the lowest.

    Of equals the first is the best and the last the worst: of two, the first wins ties.
    """
    index, real = batch.slots
    if index.shape[1] < 2 and not batch.idle:
        raise SettingError("preferences need at least two samples of every prompt: --num_generations 2 or more")
    scores = batch.lists(batch.scores)
    best = scores.masked_fill(~real, -math.inf).argmax(-1, keepdim=True)
    worst = index.shape[1] - 1 - scores.masked_fill(~real, math.inf).flip(-1).argmin(-1, keepdim=True)
    return index.gather(1, best)[:, 0], index.gather(1, worst)[:, 0]


def identical(batch: Batch, one: Tensor, other: Tensor) -> Tensor:
    """(n,) True where two completions, given by their (n,) indices, are the same tokens."""
    return (batch.lengths[one] == batch.lengths[other]) & (batch.ids[one] == batch.ids[other]).all(-1)


def metrics_of_pairs(
    batch: Batch, chosen: Tensor, rejected: Tensor, rewards: Tensor, logps: Tensor
) -> dict[str, Tensor]:
    """``PAIR_METRICS`` of completions that were paired here, by their (n,) indices, rather than by the data."""
    return rewards_of_pairs(replace(batch, chosen=chosen, rejected=rejected), rewards, logps)


@dataclass
class OnlineDPOConfig(Config):
    """Settings of online DPO."""

    beta: float = option(0.1, "strength of the tie to the reference; for ipo the paper has 1.0")
    loss_type: str = option("sigmoid", "of a pair: 'sigmoid' (DPO), or 'ipo' (squares, of sums over tokens)")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(
            self.loss_type in LOSS_TYPES, f"loss_type must be one of {', '.join(LOSS_TYPES)}, not {self.loss_type!r}"
        )


class OnlineDPO(Algorithm[OnlineDPOConfig]):
    """DPO on two fresh samples of every prompt, of which a reward model or a judge says which is better.

    Of two samples that are as good as each other the first counts as preferred. Samples that are the same tokens carry
    no information: their pair has the value 0, so that it pulls nothing and still counts in the mean. Of more than two
    samples the best and the worst are compared.
    """

    name = "online_dpo"
    summary = "DPO on pairs of the policy's own samples, made and judged at every step"
    paper = Paper("Direct Language Model Alignment from Online AI Feedback", "https://arxiv.org/abs/2402.04792", 2024)
    equation = (
        "L = mean over prompts of -log sigmoid(beta (R_w - R_l)), or (R_w - R_l - 1/(2 beta))^2,  "
        "R = log pi(y|x) - log ref(y|x), sums over tokens,  w, l two samples of pi, r(w) >= r(l)"
    )
    data = "rollouts"
    needs = Needs(reference=True, samples=2, ratios=False)
    Config = OnlineDPOConfig
    metrics = {
        **PAIR_METRICS,
        "first_wins": "share of prompts whose first sample is preferred; of two samples, a judge that goes by their "
        "place moves it away from one half",
        "identical": "share of prompts whose samples are the same tokens; they are left out of the metrics of pairs",
        "objective/scores_margin": "mean difference between the scores of the preferred and of the other sample",
        "kl": "mean log-ratio of the sampled completions to the reference, summed over tokens",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    golden = {
        "online_dpo": {
            "a": "completion",
            "b": "completion",
            "reward_a": "score_a",
            "reward_b": "score_b",
            "eos_a": "has_eos_a",
            "eos_b": "has_eos_b",
        }
    }
    functions = {"rlaif_debias": rlaif_debias, "judge_average": judge_average}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        config, logps = self.config, policy.sum()
        logratios = logps - reference.sum()
        chosen, rejected = best_and_worst(batch)
        same = identical(batch, chosen, rejected)
        losses = preference_loss(logratios[chosen] - logratios[rejected], config.beta, config.loss_type)
        metrics = metrics_of_pairs(batch, chosen[~same], rejected[~same], config.beta * logratios, logps)
        metrics["first_wins"] = (chosen == batch.slots[0][:, 0])[~same].to(logps.dtype)
        metrics["identical"] = same.to(logps.dtype)
        metrics["objective/scores_margin"] = (batch.scores[chosen] - batch.scores[rejected])[~same]
        metrics["kl"] = logratios.detach()
        return Loss([Term(losses.masked_fill(same, 0.0), "group")], metrics)

    def value_at_reference(self, batch: Batch) -> float:
        informative = (~identical(batch, *best_and_worst(batch))).double()
        losses = preference_loss(torch.zeros_like(informative), self.config.beta, self.config.loss_type)
        return float((informative * losses).mean())
