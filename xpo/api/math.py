"""One stable copy of the arithmetic that losses share."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

__all__ = [
    "adapted_coefficient",
    "bounded",
    "clipped_surrogate",
    "forward_kl",
    "gae",
    "k1",
    "k2",
    "k3",
    "leave_one_out",
    "log1mexp",
    "logsigmoid",
    "smoothed",
    "softplus",
    "whiten",
]


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
    difference = bounded(reference_logps - logps)
    return torch.expm1(difference) - difference


def clipped_surrogate(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """max(-A ratio, -A clip(ratio, 1 - low, 1 + high)) of tensors of one shape (1707.06347, eq. 7, as a loss)."""
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1.0 - low, 1.0 + high))


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lambda_: float) -> Tensor:
    """Generalised advantage estimation (1506.02438, eq. 16): A_t = d_t + gamma lambda A_{t+1}.

    d_t = r_t + gamma V_{t+1} - V_t, where V is 0 after the last token.

    Args: (C, T) rewards of tokens, (C, T) values of the states before them, (C, T) True where a token is real.
    Returns: (C, T) advantages, 0 where the mask is False.
    """
    rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    advantages = torch.zeros_like(values)
    advantage = following = values.new_zeros(len(values))
    for t in reversed(range(values.shape[1])):
        # In the padding everything is 0, so what comes before it starts from 0.
        delta = rewards[:, t] + gamma * following - values[:, t]
        advantage = delta + gamma * lambda_ * advantage
        advantages[:, t] = advantage
        following = values[:, t]
    return advantages


def whiten(values: Tensor, mask: Tensor, moments: tuple[Tensor, Tensor], *, shift: bool = True) -> Tensor:
    """(values - mean) / sqrt(deviation^2 + 1e-8), with the mean added again unless it is to ``shift``.

    Args: (C, T) values, (C, T) True where they count, and their mean and standard deviation, as a rule those of
        ``batch.global_moments(values[mask])``.
    Returns: (C, T), 0 where the mask is False.
    """
    mean, deviation = moments
    whitened = (values - mean) * torch.rsqrt(deviation.square() + 1e-8)
    return (whitened if shift else whitened + mean).masked_fill(~mask, 0.0)


def adapted_coefficient(coefficient: float, kl: float, target: float, sequences: float, horizon: float) -> float:
    """c (1 + clip(KL / target - 1, -0.2, 0.2) n / horizon): larger where the KL of n sequences is (1909.08593, 2.2)."""
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return coefficient * (1.0 + error * sequences / horizon)
