"""Bradley-Terry reward model (Stiennon et al. 2020, arXiv 2009.01325), with margins (Llama 2, arXiv 2307.09288) and
rewards centred at 0 (Eisenstein et al. 2023, arXiv 2312.09244)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xpo import Algorithm, Batch, Config, Loss, Paper, Scores, Term, option
from xpo.api.math import softplus
from xpo_zoo.logged import READING_METRICS, loss_of_readings


def bradley_terry_loss(chosen_rewards: Tensor, rejected_rewards: Tensor, margins: Tensor | float = 0.0) -> Tensor:
    """-log sigmoid(r_w - r_l - m).

    Args: two (P,) rewards, and by how much the chosen one should lead, the stronger the preference the more.
    Returns: (P,) losses.
    """
    return softplus(rejected_rewards - chosen_rewards + margins)


def normalised(rewards: Tensor, demonstration_rewards: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) rewards less the mean reward of demonstrations, and that mean: the zero a trained model should have."""
    bias = demonstration_rewards.mean()
    return rewards - bias, bias


def _normalised(rewards: Sequence[float], demonstration_rewards: Sequence[float]) -> dict[str, Any]:
    found, bias = normalised(*(torch.tensor(some, dtype=torch.float64) for some in (rewards, demonstration_rewards)))
    return {"rewards": found.tolist(), "bias": bias.item()}


@dataclass
class BradleyTerryConfig(Config):
    """Settings of the Bradley-Terry reward model."""

    center_coef: float = option(0.01, "weight of (r_w + r_l)^2, which keeps rewards around 0")
    l2_coef: float = option(0.0, "weight of r^2, a mean over all completions, which keeps rewards small")

    def __post_init__(self) -> None:
        self.require(self.center_coef >= 0, f"center_coef must not be negative, not {self.center_coef}")
        self.require(self.l2_coef >= 0, f"l2_coef must not be negative, not {self.l2_coef}")


class BradleyTerry(Algorithm[BradleyTerryConfig]):
    """A reward whose difference is the log-odds that one completion is preferred to the other.

    Train one epoch: the model overfits once it meets pairs again. A column ``margin`` of the data is how far the chosen
    completion should lead.
    """

    name = "bradley_terry"
    summary = "reward model: logistic loss on the difference of two rewards"
    paper = Paper("Learning to summarize from human feedback", "https://arxiv.org/abs/2009.01325", 2020)
    equation = "L = mean over pairs of -log sigmoid(r_w - r_l - m) + center_coef (r_w + r_l)^2"
    data = "pairs"
    columns = ("margin",)
    model = "reward"
    Config = BradleyTerryConfig
    metrics = {
        "accuracy": "share of pairs whose chosen completion has the higher reward (strictly)",
        "margin": "mean difference of the rewards of chosen and rejected completions",
        "rewards/chosen": "mean reward of the chosen completions",
        "rewards/rejected": "mean reward of the rejected completions",
        **READING_METRICS,
    }
    training = {"learning_rate": 1e-5, "num_train_epochs": 1}
    lora_training = {"learning_rate": 1e-4, "num_train_epochs": 1}
    aliases = {"center_rewards_coefficient": "center_coef"}
    golden = {"rm_bradley_terry": {"=center_coef": 0.0}}
    functions = {"rm_normalise": _normalised}

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert policy.rewards is not None
        chosen, rejected = batch.pairs(policy.rewards)
        terms = [Term(bradley_terry_loss(chosen, rejected, self._margins(batch, chosen)), "pair")]
        if self.config.center_coef:
            terms.append(Term((chosen + rejected).square(), "pair", weight=self.config.center_coef, name="center"))
        if self.config.l2_coef:
            terms.append(Term(policy.rewards.square(), "completion", weight=self.config.l2_coef, name="l2"))
        metrics = {
            "accuracy": (chosen > rejected).to(chosen.dtype),
            "margin": (chosen - rejected).detach(),
            "rewards/chosen": chosen.detach(),
            "rewards/rejected": rejected.detach(),
        }
        return loss_of_readings(terms, metrics, policy.rewards)

    @staticmethod
    def _margins(batch: Batch, like: Tensor) -> Tensor:
        """(P,) margins of the data, 0 where a row has none."""
        if "margin" not in batch.group_columns:
            return torch.zeros_like(like)
        return batch.group_columns["margin"].nan_to_num(0.0)[batch.group[batch.chosen]]
