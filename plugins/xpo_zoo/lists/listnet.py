"""ListNet's softmax cross-entropy (Cao et al. 2007) on log-ratios, a baseline of LiPO (arXiv 2402.01878)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Paper, Scores, Term, option
from xpo_zoo.logged import LIST_METRICS, rewards_of_lists
from xpo_zoo.ranking import listed_log_softmax, scored


def listnet_loss(s: Tensor, labels: Tensor, real: Tensor, label_temperature: float) -> Tensor:
    """-sum over i of softmax(psi / T)_i log softmax(s)_i.

    Args: (G, K) s = beta (log pi - log ref) summed over tokens, labels psi, and where there is a completion.
    Returns: (G,) cross-entropies.
    """
    targets = listed_log_softmax(labels / label_temperature, real).exp().masked_fill(~real, 0.0)
    return -(targets * listed_log_softmax(s, real)).sum(-1)


@dataclass
class ListNetConfig(Config):
    """Settings of ListNet."""

    beta: float = option(0.05, "strength of the tie to the reference (0.05 to 0.5)")
    label_temperature: float = option(1.0, "temperature of the scores; lower puts the target on the best completion")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.label_temperature > 0, f"label_temperature must be positive, not {self.label_temperature}")


class ListNet(Algorithm[ListNetConfig]):
    """The softmax of the scores is the target of the softmax of the implicit rewards; equal scores ask for equality."""

    name = "listnet"
    summary = "cross-entropy between the softmax of a list's scores and that of its implicit rewards"
    paper = Paper(
        "LiPO: Listwise Preference Optimization through Learning-to-Rank", "https://arxiv.org/abs/2402.01878", 2024
    )
    equation = "L = mean over prompts of -sum over i of softmax(psi / T)_i log softmax(s)_i,  s = beta R"
    data = "lists"
    needs = Needs(reference=True, scores=True)
    Config = ListNetConfig
    metrics = LIST_METRICS
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    golden = {"listnet": {}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        return scored(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        rewards = self.config.beta * (policy.sum() - reference.sum())
        losses = listnet_loss(
            batch.lists(rewards), batch.lists(batch.scores), batch.slots[1], self.config.label_temperature
        )
        return Loss([Term(losses, "group")], rewards_of_lists(batch, rewards, policy.sum()))

    def value_at_reference(self, batch: Batch) -> float | None:
        """Mean of ln K: the policy's softmax is uniform, whatever the target."""
        return float(batch.slots[1].sum(-1).double().log().mean())
