"""What a loss leaves behind, gradients that are cut, numbers that are not finite, shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tests.testing.mistakes.building import FREE, Mistake, with_loss, wrong
from tests.testing.strangers import Labels, Pairs, Rollouts
from xpo import Batch, Needs, Scores


class Counting(Pairs):
    """A running mean that no checkpoint knows of."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.mean = 0.0

    def losses(self, batch: Batch, margins: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1
        return Pairs.losses(self, batch, margins - self.mean)


_seen: list[int] = []


def _remembering(self: Any, batch: Batch, margins: Tensor) -> Tensor:
    _seen.append(1)
    return Pairs.losses(self, batch, margins - 0.01 * len(_seen))


def _write(self: Any, batch: Batch, policy: Scores, reference: Scores) -> Tensor:
    reference.logps.masked_fill_(~batch.mask, 0.0)
    return policy.sum() - reference.sum()


def _odds(self: Any, batch: Batch, policy: Scores, reference: Scores | None) -> Tensor:
    log_odds = policy.mean() - torch.log(1 - torch.exp(policy.mean()))
    chosen, rejected = batch.pairs(log_odds)
    return -logsigmoid(chosen - rejected)


class Shifting(Counting):
    """A running mean that checkpoints hold, of what one process has."""

    def losses(self, batch: Batch, margins: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.mean = 0.9 * self.mean + 0.1 * float(margins.detach().mean())
        return Pairs.losses(self, batch, margins - self.mean)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean = state["mean"]


def _asks_where_there_is_some(self: Any, batch: Batch, rewards: Tensor) -> Tensor:
    shift = batch.global_mean(rewards[batch.labels]) if batch.labels.any() else 0.0
    return Labels.losses(self, batch, rewards - shift)


def _asks_unless_idle(self: Any, batch: Batch, rewards: Tensor) -> Tensor:
    return rewards * 0.0 if batch.idle else Labels.losses(self, batch, rewards - batch.global_mean(rewards))


def _write_rewards(self: Any, batch: Batch, rewards: Tensor) -> Tensor:
    batch.scores.copy_(rewards)
    return Rollouts.advantages(self, batch, rewards)


CONDUCT: dict[str, Mistake] = {
    "input written": (wrong(Pairs, ratios=_write), "purity", "the loss writes into reference.logps"),
    "random numbers": (
        wrong(Pairs, losses=lambda s, b, m: Pairs.losses(s, b, m) * torch.rand(())),
        "purity",
        "draws random numbers",
    ),
    "state that is not saved": (Counting, "state", "keeps state between calls that is not in state_dict"),
    "state outside of the instance": (wrong(Pairs, losses=_remembering), "purity", "keeps something between calls"),
    "state of one process": (Shifting, "processes", "two processes end up with different states"),
    "a sum that one process asks for": (
        wrong(Labels, needs=Needs(reference=True, least=2), losses=_asks_where_there_is_some),
        "processes",
        "asks the others for a sum that they do not ask for where it has desirable completions alone",
    ),
    "a sum that a stand-in does not ask for": (
        wrong(Labels, needs=Needs(reference=True, least=2), losses=_asks_unless_idle),
        "processes",
        "where theirs is a stand-in (batch.idle)",
    ),
    "rewards written by experience": (
        wrong(Rollouts, advantages=_write_rewards),
        "experience",
        "experience writes into batch.scores",
    ),
    "policy detached": (
        wrong(Pairs, ratios=lambda s, b, p, r: p.sum().detach() - r.sum()),
        "gradient",
        "the loss has no gradient",
    ),
    "chosen detached": (
        wrong(Pairs, split=lambda s, b, r: (b.pairs(r)[0].detach(), b.pairs(r)[1])),
        "gradient",
        "completions 'chosen' get no gradient",
    ),
    "a count": (wrong(Pairs, losses=lambda s, b, m: (m < 0).long()), "gradient", "its values are int64, and counts"),
    "exp of a margin": (wrong(Pairs, losses=lambda s, b, m: torch.exp(-m)), "extremes", "hundreds of nats"),
    "log of 1 - exp": (with_loss(Pairs, _odds, "pair", **FREE), "extremes", "use softplus, logsigmoid and log1mexp"),
    "half precision": (
        wrong(Pairs, ratios=lambda s, b, p, r: (p.sum() - r.sum()).half().double()),
        "precision",
        "it computes in float16",
    ),
    "wrong shape": (
        with_loss(Pairs, lambda s, b, p, r: s.losses(b, p.sum() - r.sum()), "pair"),
        "finite loss",
        "the batch asks for (1,); return one unreduced value for every item",
    ),
    "no such level": (
        with_loss(Labels, lambda s, b, p, r: s.losses(b, s.config.beta * (p.sum() - r.sum())), "sequence"),
        "finite loss",
        "has level 'sequence', and there is no such level",
    ),
}
