"""A reference that is dropped, added, or given gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tests.testing.mistakes.building import Mistake, with_loss, wrong
from tests.testing.strangers import Labels, Pairs, Rollouts
from xpo import Algorithm, Batch, Config, Loss, Needs, Scores, Term, option


def _one_sided(self: Any, batch: Batch, policy: Scores, reference: Scores) -> Tensor:
    """The reference of chosen completions only."""
    return policy.sum() - reference.sum().index_fill(0, batch.rejected, 0.0)


def _added_on_one_side(self: Any, batch: Batch, policy: Scores, reference: Scores) -> Tensor:
    sign = torch.ones(len(batch), dtype=torch.float64).index_fill(0, batch.rejected, -1.0)
    return policy.sum() - sign * reference.sum()


@dataclass
class Nought(Config):
    beta: float = option(0.0, "strength of the tie to the reference")


def _kl_by_its_value(self: Any, batch: Batch, policy: Scores, reference: Scores) -> Loss:
    kl = self.config.beta * (policy.sum() - reference.sum())
    return Loss([Term(self.losses(batch, policy.sum()), "completion"), Term(kl, "completion", name="kl")])


def _through_the_reward(self: Any, batch: Batch, policy: Scores, reference: Scores) -> Tensor:
    return -self.advantages(batch, self.shaped(batch, policy, reference)) * policy.sum()


REFERENCES: dict[str, Mistake] = {
    "reference: never read": (
        wrong(Pairs, ratios=lambda s, b, p, r: p.sum()),
        "needs",
        "the reference is declared but changes nothing",
    ),
    "reference: dropped": (
        wrong(Pairs, ratios=lambda s, b, p, r: p.sum(), needs=Needs()),
        "needs",
        "the reference is dropped: the equation has 'ref'",
    ),
    "reference: of the chosen only": (
        wrong(Pairs, ratios=_one_sided),
        "reference",
        "the reference is dropped for completions 'rejected'",
    ),
    "reference: added": (
        wrong(Pairs, ratios=lambda s, b, p, r: p.sum() + r.sum()),
        "reference",
        "the reference is read with the wrong sign",
    ),
    "reference: added, in a hinge": (
        wrong(
            Pairs, ratios=lambda s, b, p, r: p.sum() + r.sum(), losses=lambda s, b, m: (9 - s.config.beta * m).relu()
        ),
        "reference",
        "log pi + log ref",
    ),
    "reference: added on one side": (
        wrong(Pairs, ratios=_added_on_one_side),
        "reference",
        "wrong sign in completions 'rejected'",
    ),
    "reference: added to the labels": (
        with_loss(Labels, lambda s, b, p, r: s.losses(b, s.config.beta * (p.sum() + r.sum())), "completion"),
        "reference",
        "wrong sign",
    ),
    "reference: KL paid for": (
        wrong(Rollouts, shaped=lambda s, b, p, r: b.scores + s.config.beta * (p.sum() - r.sum())),
        "reference",
        "the policy is driven away from the reference",
    ),
    "reference: a KL whose gradient has no reference": (
        wrong(Rollouts, shaped=lambda s, b, p, r: b.scores, loss=_kl_by_its_value),
        "reference",
        "the reference changes the loss and not its gradient",
    ),
    "reference: gradient through a reward": (
        with_loss(Rollouts, _through_the_reward, "completion", experience=Algorithm.experience),
        "reference",
        "gradient goes through a reward",
    ),
    "reference: not with the default": (
        wrong(Pairs, Config=Nought),
        "needs",
        "with default settings nothing depends on what Needs(reference=True) asks for, and with beta 1.0 something",
    ),
    "reference: averaged, the policy added up": (
        wrong(Pairs, ratios=lambda s, b, p, r: p.sum() - r.mean()),
        "reference",
        "one of policy and reference is averaged over tokens and the other added up",
    ),
    "reference: added up, the policy averaged": (
        with_loss(Labels, lambda s, b, p, r: s.losses(b, s.config.beta * (p.mean() - r.sum())), "completion"),
        "reference",
        "take sum() of both, or mean() of both",
    ),
    "reference: gradient": (
        wrong(Pairs, ratios=lambda s, b, p, r: p.sum() - r.logps.requires_grad_().sum(-1)),
        "gradient stays",
        "gradient into the reference",
    ),
}
