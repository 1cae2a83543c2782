"""Direct reward optimisation with a value function (Richemond et al. 2024, arXiv 2405.19107)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from xpo import Algorithm, Batch, Config, Group, Loss, Needs, Paper, Scores, Term, option
from xpo_zoo.ranking import scored


def dro_losses(logratios: Tensor, values: Tensor, rewards: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Policy: -(r - sg[V]) R + tau/2 R^2.  Value: 1/2 (r - V - tau sg[R])^2.

    Both come from (r - V - tau R)^2 / 2. The policy's part is divided by tau, so that its gradient does not fade with
    it, and each part holds the other model still.

    Args: (B,) log-ratios R summed over tokens, (B,) values of the prompts, (B,) rewards.
    Returns: (B,) policy losses and (B,) value losses; both are stationary at R = (r - V) / tau.
    """
    policy = -(rewards - values.detach()) * logratios + 0.5 * tau * logratios.square()
    value = 0.5 * (rewards - values - tau * logratios.detach()).square()
    return policy, value


@dataclass
class DROVConfig(Config):
    """Settings of DRO-V."""

    tau: float = option(1.0, "strength of the tie to the reference, in units of the reward; rewards of order 1")

    def __post_init__(self) -> None:
        self.require(self.tau > 0, f"tau must be positive, not {self.tau}")


class DROV(Algorithm[DROVConfig]):
    """Least squares on what the optimal policy and its value function say about the reward of a completion."""

    name = "dro_v"
    summary = "least squares on single scalar rewards, with a value model of the prompt as the baseline"
    paper = Paper(
        "Offline Regularised Reinforcement Learning for Large Language Models Alignment",
        "https://arxiv.org/abs/2405.19107",
        2024,
    )
    equation = "L = mean of -(r - sg[V]) R + tau/2 R^2 for the policy, and of 1/2 (r - V - tau sg[R])^2 for the value"
    data = "labels"
    needs = Needs(reference=True, values=True, scores=True)
    Config = DROVConfig
    metrics = {
        "logratios": "mean log-ratio R of the completions to the reference",
        "values": "mean value of the prompts",
        "logps": "mean log-probability of the completions",
        "scores": "mean reward of the data",
    }
    training = {"learning_rate": 5e-7}
    lora_training = {"learning_rate": 5e-6}
    golden = {"dro_v": {"policy_loss": "loss/policy", "value_loss": "loss/value"}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        return scored(groups, "score (or reward, or label)")

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        assert reference is not None
        assert policy.values is not None
        logratios = policy.sum() - reference.sum()
        values = policy.values[:, 0]  # where the first token is predicted: it knows the prompt and nothing more
        policy_losses, value_losses = dro_losses(logratios, values, batch.scores, self.config.tau)
        terms = [
            Term(policy_losses, "completion", over="completion", name="policy"),
            Term(value_losses, "completion", over="completion", name="value"),
        ]
        metrics = {
            "logratios": logratios.detach(),
            "values": values.detach(),
            "logps": policy.sum().detach(),
            "scores": batch.scores,
        }
        return Loss(terms, metrics)
