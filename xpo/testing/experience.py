"""The check that what is made of samples once, such as advantages, is the same however many processes there are."""

from __future__ import annotations

import torch
from torch import Tensor

from xpo.api.algorithm import Algorithm
from xpo.testing.report import Cross, NotApplicable
from xpo.testing.subject import NEAR, Subject
from xpo.testing.trial import experience as columns_of
from xpo.testing.trial import prepared

#: Rounding of float64, of sums in another order.
ROUNDING = 1e-9


def experience(subject: Subject) -> str:
    """What experience says of a sample follows from the samples of its prompt, or from those of every process."""
    if not subject.rollouts or subject.cls.experience is Algorithm.experience:
        raise NotApplicable("it has no experience of its own")
    groups = prepared(subject.make(), NEAR)
    asked: list[Tensor] = []

    def reduce(tensor: Tensor) -> Tensor:
        asked.append(tensor)
        return tensor

    half = len(groups) // 2
    changed: list[str] = []
    whole = columns_of(subject.make(), groups, NEAR, reduce, changed)
    if changed:
        raise Cross(f"experience writes into {changed[0]}; the loss reads that too, so work on a copy")
    parts = [columns_of(subject.make(), some, NEAR, reduce) for some in (groups[:half], groups[half:])]
    if asked:
        return "with a statistic of every process"
    for name, column in whole.items():
        for one, other in zip(column, [row for part in parts for row in part[name]], strict=True):
            size = min(one.numel(), other.numel())  # halves may be narrower
            if not torch.allclose(one.flatten()[:size], other.flatten()[:size], ROUNDING, ROUNDING):
                raise Cross(
                    f"experience makes another '{name}' of a sample when other prompts are sampled beside it: it is "
                    "normalised by the micro-batch, or by what one process has; compare within a prompt, with "
                    "batch.lists, or ask every process, with batch.global_mean or batch.global_moments"
                )
    return "prompt by prompt"
