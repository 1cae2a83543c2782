"""SimNPO, simplicity in negative preference optimisation (Fan et al. 2024, arXiv 2410.07163)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from xpo import Algorithm, Batch, Config, Group, Loss, Paper, Scores, Term, nll, option
from xpo.api.math import softplus
from xpo_zoo.forget.npo import with_retained


def simnpo_loss(average_logps: Tensor, beta: float, gamma: float = 0.0) -> Tensor:
    """-(2 / beta) log sigmoid(beta (-A - gamma)), NPO without a reference.

    Args: (n,) log-probabilities A averaged over the tokens of a completion to forget. gamma is inside beta, as in the
        authors' code; the paper has it outside, and both set it to 0.
    Returns: (n,) losses.
    """
    return (2.0 / beta) * softplus(beta * (average_logps + gamma))


@dataclass
class SimNPOConfig(Config):
    """Settings of SimNPO."""

    beta: float = option(2.5, "scale of the reward (0.7 to 4.5)")
    gamma: float = option(0.0, "how far below 0 the average log-probability is to fall, in nats a token")
    forget_weight: float = option(0.1375, "weight of the loss on completions to forget")
    retain_nll_weight: float = option(1.0, "weight of the NLL on completions to retain")

    def __post_init__(self) -> None:
        self.require(self.beta > 0, f"beta must be positive, not {self.beta}")
        self.require(self.forget_weight >= 0, f"forget_weight must not be negative, not {self.forget_weight}")
        self.require(
            self.retain_nll_weight >= 0, f"retain_nll_weight must not be negative, not {self.retain_nll_weight}"
        )


class SimNPO(Algorithm[SimNPOConfig]):
    """NPO on average log-probabilities: no reference, and long completions are forgotten no faster than short ones."""

    name = "simnpo"
    summary = "unlearning like NPO on average log-probabilities, without a reference"
    paper = Paper(
        "Simplicity Prevails: Rethinking Negative Preference Optimization", "https://arxiv.org/abs/2410.07163", 2024
    )
    equation = (
        "L = forget_weight mean over forget of -(2/beta) log sigmoid(beta (-A - gamma)) "
        "+ retain_nll_weight NLL(retain),  A = log pi(y|x) / |y|"
    )
    data = "forget"
    Config = SimNPOConfig
    metrics = {
        "forget_loss": "mean loss of the completions to forget, before its weight",
        "retain_loss": "mean NLL a token of the completions to retain",
        "logps/forget": "mean over completions to forget of their average log-probability a token",
    }
    training = {"learning_rate": 1e-5, "weight_decay": 0.01}
    lora_training = {"learning_rate": 1e-4, "weight_decay": 0.01}
    raises = ("retain",)
    lowers = ("forget",)
    # A case that does not name the weight of forgetting means the bare loss, not the weight tuned on TOFU.
    golden = {"simnpo": {"=forget_weight": 1.0, "retain_nll": "retain_loss"}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        """Drop what is to be retained where it has no weight."""
        return with_retained(groups, self.config.retain_nll_weight > 0)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        config = self.config
        average = policy.mean()[batch.where("forget")]
        losses = simnpo_loss(average, config.beta, config.gamma)
        retained, items = nll(batch, policy, "retain", weight=config.retain_nll_weight, name="retain")
        terms = [Term(losses, "completion", over="forget", weight=config.forget_weight, name="forget"), retained]
        return Loss(terms, {"forget_loss": losses, "retain_loss": items, "logps/forget": average})
