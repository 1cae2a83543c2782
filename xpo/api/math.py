"""One stable copy of the arithmetic that losses share."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

__all__ = ["bounded", "forward_kl", "k1", "k2", "k3", "leave_one_out", "log1mexp", "logsigmoid", "smoothed", "softplus"]


def log1mexp(a: Tensor) -> Tensor:
    """log(1 - e^a) for a < 0, without losing digits at either end (Mächler 2012, eq. 7)."""
    near = a > -math.log(2.0)
    # Each branch sees a harmless input where the other is used, or its gradient would be NaN there.
    expm1 = torch.log(-torch.expm1(torch.where(near, a, torch.full_like(a, -1.0))))
    log1p = torch.log1p(-torch.exp(torch.where(near, torch.full_like(a, -1.0), a)))
    return torch.where(near, expm1, log1p)


def bounded(exponents: Tensor) -> Tensor:
    """Exponents that exp() takes without overflow, with room left for a factor and a sum; the slope is 0 beyond."""
    return exponents.clamp_max(math.log(torch.finfo(exponents.dtype).max) - 8.0)


def smoothed(z: Tensor, label_smoothing: float) -> Tensor:
    """Logistic loss of margins ``z`` whose labels are flipped with probability ``label_smoothing``.

    (1 - e) softplus(-z) + e softplus(z); e = 0 is -log sigmoid(z).
    """
    loss = softplus(-z)
    if label_smoothing:
        loss = (1.0 - label_smoothing) * loss + label_smoothing * softplus(z)
    return loss


def leave_one_out(rewards: Tensor) -> Tensor:
    """(G, K) rewards minus the mean of the other K - 1 of the same group; needs K >= 2 (2402.14740, eq. 6)."""
    k = rewards.shape[-1]
    if k < 2:
        raise ValueError("leave-one-out needs at least two samples of every prompt")
    return (rewards - rewards.mean(-1, keepdim=True)) * (k / (k - 1))


def forward_kl(logps: Tensor, reference_logps: Tensor) -> Tensor:
    """KL(ref || pi) = sum_v ref(v) (log ref(v) - log pi(v)) of (m, V) log-probabilities: (m,) values.

    From log-probabilities on both sides: the logarithm of a probability that underflowed would give 0 times infinity.
    """
    return (reference_logps.exp() * (reference_logps - logps)).sum(-1)


def k1(logps: Tensor, reference_logps: Tensor) -> Tensor:
    """KL estimator log-ratio: unbiased, may be negative (Schulman, 'Approximating KL divergence')."""
    return logps - reference_logps


def k2(logps: Tensor, reference_logps: Tensor) -> Tensor:
    """KL estimator half squared log-ratio: biased, never negative."""
    return 0.5 * (logps - reference_logps).square()


def k3(logps: Tensor, reference_logps: Tensor) -> Tensor:
    """KL estimator r - 1 - log r with r = pi_ref / pi: unbiased, never negative."""
    difference = reference_logps - logps
    return torch.expm1(difference) - difference
