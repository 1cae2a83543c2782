"""Checks that a loss is there and is a finite number: for any data, and at extremes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch

from xpo.api.algorithm import Algorithm
from xpo.api.groups import Group
from xpo.errors import PluginError
from xpo.testing.fabricate import STEP, parts
from xpo.testing.moods import EXTREMES
from xpo.testing.outcome import Outcome
from xpo.testing.report import Cross, told
from xpo.testing.subject import Subject, spelt
from xpo.testing.trial import Situation, prepared, trial


def finite_loss(subject: Subject) -> str:
    """The loss is a finite number, for a step, for the smallest micro-batch, and 0 for a stand-in."""
    value = math.nan
    for situation in reversed(subject.situations):
        algorithm = subject.make()
        groups = prepared(algorithm, situation)
        least = algorithm.needs.least
        for micro in parts(algorithm, groups, [least] * (STEP // least)):
            where = f"a micro-batch of rows {', '.join(str(group.row) for group in micro)}{_peculiar(micro)}"
            _finite(_tried(algorithm, micro, situation, where), f"of {where}")
        whole = _tried(subject.make(), groups, situation, "a step")
        _finite(whole, "of a step")
        idle = trial(algorithm, groups[:1], situation, totals={}, idle=True)
        if idle.loss or idle.largest:
            raise Cross("a batch with idle set has a loss; it is a stand-in and must count for nothing")
        value = whole.loss
    return f"{value:.4g} on made-up {subject.cls.data}{_unless(subject)}"


def _unless(subject: Subject) -> str:
    """With which other setting the loss is no number, as a clause."""
    for settings in subject.variations():
        for situation in subject.situations:
            try:
                outcome = subject.tried(situation, settings)
            except Exception:  # what a value does not do with is for the check of settings to say
                break
            if outcome is not None and not math.isfinite(outcome.loss):
                return f"; {outcome.loss}{spelt(settings)}, which is accepted"
    return ""


def _tried(algorithm: Algorithm[Any], groups: Sequence[Group], situation: Situation, where: str) -> Outcome:
    """An outcome; where there is none, the reason with what it is about the data."""
    try:
        return trial(algorithm, groups, situation)
    except PluginError as error:
        if re.search(r"has shape \((1,)?\)", str(error)):
            raise Cross(
                f"the loss is reduced to one number inside the micro-batch, and the loop divides again: {error}"
            ) from error
        raise Cross(f"for {where} {error}") from error
    except Exception as error:  # it may fail in any way there is
        raise Cross(f"for {where} it raises {told(error)}{_uneven(algorithm, groups, situation)}") from error


def _uneven(algorithm: Algorithm[Any], groups: Sequence[Group], situation: Situation) -> str:
    """What to add where groups raise together, and not by themselves."""
    if len({len(group.completions) for group in groups}) < 2:
        return ""
    try:
        for group in groups:
            trial(algorithm, [group], situation)
    except Exception:
        return ""
    return "; rows of as many completions do: prompts differ in how many they have, which batch.lists arranges"


def _peculiar(groups: Sequence[Group]) -> str:
    """What all groups of a micro-batch have, and other data has not, as a clause."""
    found = []
    labels = {one.label for group in groups for one in group.completions}
    if labels in ({True}, {False}):
        found.append("desirable completions only" if True in labels else "undesirable completions only")
    scores = [[one.score for one in group.completions if one.score is not None] for group in groups]
    if all(len(some) > 1 and len(set(some)) == 1 for some in scores):
        found.append("completions of one prompt with the same score, so that their deviation is 0")
    return f" ({'; '.join(found)})" if found else ""


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
