"""Gradient ascent and gradient difference, the baselines of unlearning (Maini et al. 2024, arXiv 2401.06121)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xpo import Algorithm, Batch, Config, Group, Loss, Paper, Scores, nll, option
from xpo_zoo.forget.npo import with_retained


@dataclass
class GradientAscentConfig(Config):
    """Settings of gradient ascent."""

    retain_nll_weight: float = option(0.0, "weight of the NLL on completions to retain; 1 is gradient difference")

    def __post_init__(self) -> None:
        self.require(
            self.retain_nll_weight >= 0, f"retain_nll_weight must not be negative, not {self.retain_nll_weight}"
        )


class GradientAscent(Algorithm[GradientAscentConfig]):
    """Likelihood turned round. It has no bound: stop early, before the model falls apart, or use NPO."""

    name = "gradient_ascent"
    summary = "raises the NLL of completions to forget, without end; with a retain weight, gradient difference"
    paper = Paper("TOFU: A Task of Fictitious Unlearning for LLMs", "https://arxiv.org/abs/2401.06121", 2024)
    equation = "L = -NLL(forget) + retain_nll_weight NLL(retain), means over the tokens of a step"
    data = "forget"
    Config = GradientAscentConfig
    metrics = {
        "forget_loss": "minus the mean NLL a token of the completions to forget; falls without bound",
        "forget_nll": "mean NLL a token of the completions to forget",
        "retain_loss": "mean NLL a token of the completions to retain",
        "logps/forget": "mean log-probability of the completions to forget",
    }
    training = {"learning_rate": 1e-5, "weight_decay": 0.01}
    lora_training = {"learning_rate": 1e-4, "weight_decay": 0.01}
    raises = ("retain",)
    lowers = ("forget",)
    golden = {"gradient_ascent": {"retain_nll": "retain_loss"}}

    def collate(self, groups: Sequence[Group]) -> list[Group]:
        """Drop what is to be retained where it has no weight."""
        return with_retained(groups, self.config.retain_nll_weight > 0)

    def loss(self, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        ascended, forgotten = nll(batch, policy, "forget", weight=-1.0, name="forget")
        retained, items = nll(batch, policy, "retain", weight=self.config.retain_nll_weight, name="retain")
        metrics = {
            "forget_loss": -forgotten,
            "forget_nll": forgotten,
            "retain_loss": items,
            "logps/forget": policy.sum()[batch.where("forget")],
        }
        return Loss([ascended, retained], metrics)
