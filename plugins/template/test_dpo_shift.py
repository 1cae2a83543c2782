"""Is the loss the equation, and does the method keep what xpo relies on?"""

from __future__ import annotations

import math

import torch
from xpo.testing import check_algorithm

from dpo_shift import DpoShift, dpo_shift_loss


def test_the_loss_is_the_equation() -> None:
    chosen, rejected = [0.0, 2.0, -3.0], [0.0, -1.0, 4.0]
    losses = dpo_shift_loss(torch.tensor(chosen), torch.tensor(rejected), beta=0.5, shift=0.75)
    for loss, better, worse in zip(losses.tolist(), chosen, rejected, strict=True):
        assert abs(loss - math.log(1 + math.exp(-0.5 * (better - 0.75 * worse)))) < 1e-6


def test_it_keeps_what_xpo_relies_on() -> None:
    """All that `xpo check` tries: gradients, padding, batch splits, extremes, settings, metrics, state."""
    check_algorithm(DpoShift).require()
