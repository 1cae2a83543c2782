"""What is sound in itself and named in the remark: what the author may not have meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import logsigmoid

from tests.testing.mistakes.building import Mistake, wrong
from tests.testing.strangers import Lists, Pairs, Strength
from xpo import Batch, Config, option


@dataclass
class Unchecked(Config):
    beta: float = option(0.1, "strength of the tie to the reference")


@dataclass
class Smoothing(Strength):
    label_smoothing: float = option(0.0, "share of labels that are flipped")


@dataclass
class Rooted(Strength):
    power: float = option(1.0, "power of the margin")

    def __post_init__(self) -> None:
        self.require(self.power > 0, "power must be positive")


def _smoothed(self: Any, batch: Batch, margins: Tensor) -> Tensor:
    smoothing, scaled = self.config.label_smoothing, self.config.beta * margins
    return -(1 - smoothing) * logsigmoid(scaled) - smoothing * logsigmoid(-scaled)


def _by_best_and_worst(self: Any, batch: Batch, logps: Tensor) -> Tensor:
    real, scores, listed = batch.slots[1], batch.lists(batch.scores), batch.lists(logps)
    best = scores.masked_fill(~real, -9.0).argmax(-1, keepdim=True)
    worst = scores.masked_fill(~real, 9.0).argmin(-1, keepdim=True)
    return -logsigmoid(listed.gather(1, best) - listed.gather(1, worst))[:, 0]


REMARKED: dict[str, Mistake] = {
    "a strength below 0": (wrong(Pairs, Config=Unchecked), "feedback", "less likely with beta -1.0, which is accepted"),
    "more than half of the labels flipped": (
        wrong(Pairs, Config=Smoothing, losses=_smoothed),
        "feedback",
        "less likely with label_smoothing 1.0, which is accepted",
    ),
    "lists: two of all": (wrong(Lists, losses=_by_best_and_worst), "gradient", "neither the best nor the worst"),
    "no number with another setting": (
        wrong(Pairs, Config=Rooted, losses=lambda s, b, m: m * m.abs() ** 0 - m**s.config.power),
        "finite loss",
        "nan with power",
    ),
}
