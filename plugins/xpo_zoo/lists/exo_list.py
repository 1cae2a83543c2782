"""Efficient exact optimisation on scored lists (Ji et al. 2024, arXiv 2402.00856)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Paper, Scores, Term, option
from xpo_zoo.logged import LIST_METRICS, rewards_of_lists
from xpo_zoo.ranking import listed_log_softmax, scored


def exo_list_loss(logratios: Tensor, scores: Tensor, real: Tensor, beta_pi: float, beta_r: float) -> Tensor:
    """KL(q || p) = sum over k of q_k (log q_k - log p_k),  q = softmax(beta_pi R),  p = softmax(r / beta_r).

    Args: (G, K) log-ratios R summed over tokens, scores r, and where there is a completion.
    Returns: (G,) divergences. The policy comes first: it seeks a mode instead of covering them all.
    """
    log_q = listed_log_softmax(beta_pi * logratios, real)
    log_p = listed_log_softmax(scores / beta_r, real)
    return (log_q.exp() * (log_q - log_p)).sum(-1)  # 1 (0 - 0) where there is no completion


@dataclass
class EXOListConfig(Config):
    """Settings of EXO on lists."""

    beta_pi: float = option(0.1, "strength of the tie to the reference (0.1 to 0.5)")
    beta_r: float = option(0.1, "temperature of the scores; the paper uses that of beta_pi")

    def __post_init__(self) -> None:
        self.require(self.beta_pi > 0, f"beta_pi must be positive, not {self.beta_pi}")
        self.require(self.beta_r > 0, f"beta_r must be positive, not {self.beta_r}")


class EXOList(Algorithm[EXOListConfig]):
    """Reverse KL between what the policy and what the scores say about a list; equal scores ask for equality."""

    name = "exo_list"
    summary = "reverse KL from the softmax of a list's implicit rewards to that of its scores"
    paper = Paper(
        "Towards Efficient Exact Optimization of Language Model Alignment", "https://arxiv.org/abs/2402.00856", 2024
    )
    equation = (
        "L = mean over prompts of sum over k of q_k (log q_k - log p_k),  q = softmax(beta_pi R),  "
        "p = softmax(r / beta_r)"
    )
    data = "lists"
    needs = Needs(reference=True, scores=True)
    Config = EXOListConfig
    metrics = LIST_METRICS
    training = {"learning_rate": 1e-6}
    lora_training = {"learning_rate": 1e-5}
    golden = {"exo_rw": {}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        return scored(groups)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        logratios, config = policy.sum() - reference.sum(), self.config
        losses = exo_list_loss(
            batch.lists(logratios), batch.lists(batch.scores), batch.slots[1], config.beta_pi, config.beta_r
        )
        return Loss([Term(losses, "group")], rewards_of_lists(batch, config.beta_pi * logratios, policy.sum()))
