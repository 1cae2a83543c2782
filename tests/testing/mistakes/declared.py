"""Settings that do nothing, and metrics that are not what they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tests.testing.mistakes.building import Mistake, wrong
from tests.testing.strangers import Pairs, Strength
from xpo import Algorithm, Batch, Config, Loss, Scores, option


def with_metric(name: str, values: Callable[[Mapping[str, Tensor]], Any]) -> type[Algorithm[Any]]:
    """``Pairs`` that logs something else under a name."""

    def loss(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Loss:
        found = Pairs.loss(self, batch, policy, reference)
        return Loss(found.terms, {**found.metrics, name: values(found.metrics)})

    return wrong(Pairs, loss=loss, metrics={**Pairs.metrics, name: "something"})


@dataclass
class Idle(Strength):
    gamma: float = option(0.5, "margin that the chosen completion must have")


@dataclass
class Misdocumented(Strength):
    beta: float = option(0.1, "strength of the tie to the reference (default: 0.5)")


@dataclass
class Text(Config):
    beta: float = option("0.1", "strength of the tie to the reference")


DECLARED: dict[str, Mistake] = {
    "another default than documented": (
        wrong(Pairs, Config=Misdocumented),
        "declaration",
        "the default of the setting 'beta' is 0.1, and its documentation says 0.5",
    ),
    "a default of another type": (
        wrong(Pairs, Config=Text),
        "declaration",
        "the default of the setting 'beta' is '0.1', which is no float",
    ),
    "a setting that does nothing": (wrong(Pairs, Config=Idle), "settings", "the setting 'gamma' changes nothing"),
    "a metric that is a number": (
        with_metric("kl", lambda m: 0.5),
        "metrics",
        "the metric 'kl' is a float, not a 1-D tensor",
    ),
    "a metric that is a text": (with_metric("kl", lambda m: "low"), "metrics", "the metric 'kl' is a str"),
    "a metric of the loop": (
        with_metric("loss", lambda m: m["rewards/margins"]),
        "metrics",
        "the loop itself logs something",
    ),
    "margins turned round": (
        with_metric("rewards/margins", lambda m: -m["rewards/margins"]),
        "metrics",
        "the chosen less the rejected reward",
    ),
    "accuracies turned round": (
        with_metric("rewards/accuracies", lambda m: 1 - m["rewards/accuracies"]),
        "metrics",
        "the share of pairs where",
    ),
}
