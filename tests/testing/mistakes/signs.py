"""Wrong signs, and feedback or a reference that is not read as it is meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tests.testing.mistakes.building import Mistake, with_loss, wrong
from tests.testing.strangers import Forgets, Labels, Lists, Pairs, Rollouts, Strength
from xpo import Batch, Loss, Needs, Scores, Term, option


def _retain_flipped(self: Any, ratios: Tensor) -> Tensor:
    return -Forgets.losses(self, ratios)


@dataclass
class Flipping(Strength):
    flipped: float = option(0.9, "share of labels that are flipped")


def _flipped(self: Any, batch: Batch, margins: Tensor) -> Tensor:
    share, scaled = self.config.flipped, self.config.beta * margins
    return -(1 - share) * logsigmoid(scaled) - share * logsigmoid(-scaled)


def _driven_away(self: Any, batch: Batch, policy: Scores, reference: Scores) -> Loss:
    """The distance of what is retained to the reference, with the wrong sign."""
    ratios, retained = policy.sum() - reference.sum(), batch.where("retain")
    forget = Term(self.losses(ratios[batch.where("forget")]), "completion", "forget", name="forget")
    return Loss([forget, Term(-self.config.retain * ratios[retained].square(), "completion", "retain", name="retain")])


SIGNS: dict[str, Mistake] = {
    "pairs: sign": (
        wrong(Pairs, losses=lambda s, b, m: logsigmoid(s.config.beta * m)),
        "feedback",
        "its sign is flipped",
    ),
    "pairs: swapped": (
        wrong(Pairs, split=lambda s, b, r: b.pairs(r)[::-1]),
        "feedback",
        "chosen and rejected are swapped",
    ),
    "pairs: sign by a default": (
        wrong(Pairs, Config=Flipping, losses=_flipped),
        "feedback",
        "it is the right way round with flipped 0.45, so that the default may be what is wrong",
    ),
    "pairs: feedback ignored": (
        wrong(Pairs, losses=lambda s, b, m: (s.config.beta * m).square()),
        "feedback",
        "it makes no difference which completion is chosen",
    ),
    "labels: sign": (
        wrong(Labels, signs=lambda s, b: 1.0 - b.labels.double() * 2.0),
        "feedback",
        "the label is read the wrong way round",
    ),
    "labels: ignored": (
        wrong(Labels, signs=lambda s, b: torch.ones(len(b))),
        "feedback",
        "it makes no difference what the label is",
    ),
    "labels: undesirable raised too": (
        wrong(Labels, losses=lambda s, b, r: -logsigmoid(r) * (1.0 + b.labels)),
        "feedback",
        "makes undesirable completions likelier too",
    ),
    "labels: undesirable passed over": (
        wrong(Labels, losses=lambda s, b, r: -logsigmoid(r) * b.labels),
        "gradient",
        "undesirable completions get no gradient, though they are computed",
    ),
    "lists: sign": (
        wrong(Lists, target=lambda s, c, r: Lists.target(s, -c, r)),
        "feedback",
        "the list is sorted the wrong way round",
    ),
    "lists: scores ignored": (
        wrong(Lists, target=lambda s, c, r: r.double() / r.sum(-1, keepdim=True)),
        "needs",
        "the scores are declared but change nothing",
    ),
    "rollouts: sign": (
        wrong(Rollouts, losses=lambda s, b, p: b.columns["advantages"] * p),
        "feedback",
        "samples with high rewards less likely",
    ),
    "rollouts: rewards ignored": (
        wrong(Rollouts, advantages=lambda s, b, r: r - b.scores),
        "feedback",
        "no difference what the rewards are",
    ),
    "forget: sign": (
        wrong(Forgets, losses=_retain_flipped),
        "feedback",
        "completions 'forget' likelier: the sign of the loss is flipped",
    ),
    "forget: done to what is retained too": (
        with_loss(Forgets, lambda s, b, p, r: s.losses(p.sum()), "completion", needs=Needs(), equation="L = ..."),
        "feedback",
        "or what is for completions 'forget' is done to them too: see batch.where",
    ),
    "forget: what is retained driven away": (
        wrong(Forgets, loss=_driven_away, collate=lambda self, groups: list(groups)),
        "feedback",
        "drives completions 'retain' away from the reference",
    ),
    "forget: sign of what is retained": (wrong(Forgets, sign=-1.0), "feedback", "completions 'retain' less likely"),
}
