"""Checks of how a loss behaves: finite numbers, at extremes too, and a gradient where it belongs and nowhere else."""

from __future__ import annotations

import math
from itertools import product

import torch

from xpo.testing.fabricate import STEP, parts
from xpo.testing.moods import EXTREMES
from xpo.testing.outcome import Outcome
from xpo.testing.report import Cross, NotApplicable
from xpo.testing.subject import Subject, listed
from xpo.testing.trial import Situation, prepared, trial


def finite_loss(subject: Subject) -> str:
    """The loss is a finite number, for a step, for the smallest micro-batch, and 0 for a stand-in."""
    value = math.nan
    for situation in reversed(subject.situations):
        algorithm = subject.make()
        groups = prepared(algorithm, situation)
        whole = trial(algorithm, groups, situation)
        _finite(whole, "of a step")
        least = algorithm.needs.least
        for micro in parts(algorithm, groups, [least] * (STEP // least)):
            outcome = trial(algorithm, micro, situation)
            _finite(outcome, f"of a micro-batch of rows {', '.join(str(group.row) for group in micro)}")
        idle = trial(algorithm, groups[:1], situation, totals={}, idle=True)
        if idle.loss or idle.largest:
            raise Cross("a batch with idle set has a loss; it is a stand-in and must count for nothing")
        value = whole.loss
    return f"{value:.4g} on made-up {subject.cls.data}"


def extremes(subject: Subject) -> str:
    """Loss and gradient stay finite where log-probabilities are extreme, in float32 and in bfloat16."""
    for mood, what in EXTREMES.items():
        what = what if subject.cls.model == "policy" else "extreme rewards"
        for dtype, seed in product((torch.float32, torch.bfloat16), (0, 1)):
            for reused in (False, True) if subject.rollouts else (False,):
                outcome = subject.once(Situation(mood, seed, dtype=dtype, reused=reused))
                _finite(outcome, f"at {what}, in {str(dtype).removeprefix('torch.')},")
    return "float32, bfloat16"


def _finite(outcome: Outcome, where: str) -> None:
    if not math.isfinite(outcome.loss):
        raise Cross(
            f"the loss {where} is {outcome.loss}; use softplus, logsigmoid and log1mexp of xpo.api.math, and give "
            "items that mean nothing the value 0"
        )
    for ((row, _), _), slopes in outcome.gradient.items():
        if not torch.isfinite(slopes).all():
            raise Cross(
                f"the gradient {where} is not finite (row {row}), though the loss is; torch.where does not stop a NaN "
                "of the branch that is not taken: mask what goes into it"
            )


def gradient_stays(subject: Subject) -> str:
    """Gradient goes into trained completions and nowhere else: not the reference, not what is only scored."""
    held = {"the reference": subject.make().needs.reference}
    for situation in subject.situations:
        outcome = subject.once(situation)
        if outcome.reference is not None and outcome.reference.scores.logps.requires_grad:
            raise Cross("it lets gradient into the reference, which is frozen; take its numbers as they come")
        trained = outcome.batch.trainable.tolist()
        scored = {role for role, own in zip(outcome.batch.roles, trained, strict=True) if not own}
        held |= {f"completions '{role}'": True for role in scored}
        for term in outcome.returned.terms:
            roles = {term.over} if isinstance(term.over, str) else set(term.over or ())
            if roles & scored:
                raise Cross(
                    f"the term '{term.name}' is a mean over completions {listed(roles & scored)}, which are not "
                    "trainable; let it be one over those that are trained"
                )
    if not any(held.values()):
        raise NotApplicable("there is no reference, and every completion is trained")
    return f"not into {', '.join(name for name, there in held.items() if there)}"


def every_token(subject: Subject) -> str:
    """The first and the last token of a completion matter as those between them do."""
    if subject.cls.model != "policy":
        raise NotApplicable("a reward model reads one number of a completion")
    first = last = 0.0
    for situation in (*subject.situations, Situation(seed=2)):
        for pull in subject.once(situation).pull.values():
            if len(pull) > 2:
                first, last = max(first, float(pull[0].abs())), max(last, float(pull[-1].abs()))
    for place, found in (("first", first), ("last", last)):
        if not found:
            raise Cross(
                f"the {place} token of a completion never gets a gradient; logps[:, 0] is the first token of the "
                "completion itself, and its mask ends with its last, so nothing is to be shifted"
            )
    return "first and last"
