"""InfoNCA on scored lists (Chen et al. 2024, arXiv 2402.05369)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Paper, Scores, Term, option
from xpo_zoo.logged import LIST_METRICS, rewards_of_lists
from xpo_zoo.ranking import listed_log_softmax, scored


def info_nca_loss(rewards: Tensor, scores: Tensor, real: Tensor, alpha: float) -> Tensor:
    """-sum over k of softmax(r / alpha)_k log softmax(beta R)_k.

    Args: (G, K) implicit rewards beta R summed over tokens, scores r, and where there is a completion.
    Returns: (G,) cross-entropies; ln K where the policy equals the reference.
    """
    targets = listed_log_softmax(scores / alpha, real).exp().masked_fill(~real, 0.0)
    return -(targets * listed_log_softmax(rewards, real)).sum(-1)


@dataclass
class InfoNCAConfig(Config):
    """Settings of InfoNCA."""

    beta: float = option(0.01, "strength of the tie to the reference")
    alpha: float = option(1.0, "temperature of the scores; lower puts the target on the best completion")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.alpha > 0, f"alpha must be positive, not {self.alpha}")


class InfoNCA(Algorithm[InfoNCAConfig]):
    """The implicit rewards classify which completion the scores favour; with all weight on one of two this is DPO."""

    name = "info_nca"
    summary = "cross-entropy from the softmax of a list's scores, relative rewards only"
    paper = Paper(
        "Noise Contrastive Alignment of Language Models with Explicit Rewards", "https://arxiv.org/abs/2402.05369", 2024
    )
    equation = "L = mean over prompts of -sum over k of t_k log softmax(beta R)_k,  t = softmax(r / alpha)"
    data = "lists"
    needs = Needs(reference=True, scores=True)
    Config = InfoNCAConfig
    metrics = LIST_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    golden = {"info_nca": {}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        return scored(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        rewards = self.config.beta * (policy.sum() - reference.sum())
        losses = info_nca_loss(batch.lists(rewards), batch.lists(batch.scores), batch.slots[1], self.config.alpha)
        return Loss([Term(losses, "group")], rewards_of_lists(batch, rewards, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float | None:
        """Mean of ln K."""
        return float(batch.slots[1].sum(-1).double().log().mean())
