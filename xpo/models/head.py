"""The compact head: log-probabilities of labels from hidden states, without logits of all tokens at once.

Only positions that predict a completion token are projected to the vocabulary, some rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

#: Logits held at once.
TILE = 1 << 24


@dataclass(frozen=True)
class Head:
    """What a causal language model does to its last hidden state.

    Attributes:
        module: the projection to the vocabulary, adapters and all.
        scale: factor of the logits.
        softcap: bound of the logits, as softcap tanh(logits / softcap); None for no bound.
        temperature: logits are divided by it, as they were when completions were sampled.
    """

    module: torch.nn.Module
    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, V) logits of (n, d) hidden states, in float32 at least."""
        return self.shaped(self.module(hidden))

    def shaped(self, logits: Tensor) -> Tensor:
        """What follows the projection."""
        logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits if self.temperature == 1.0 else logits / self.temperature

    def logps(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """(n,) log-probability of each label, with gradient to the hidden states and to the projection.

        Args: (n, d) hidden states and (n,) token ids.
        """
        module = self.module
        width = int(getattr(module, "out_features", 0)) or int(self.module(hidden[:1]).shape[-1])
        rows = max(TILE // width, 1)
        if torch.is_grad_enabled() and type(module) is torch.nn.Linear and not module.weight.requires_grad:
            found: Tensor = _FrozenHead.apply(hidden, labels, self, rows)  # type: ignore[no-untyped-call]  # torch's
            return found
        again = torch.is_grad_enabled() and len(labels) > rows
        tiles = zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True)
        return torch.cat([self._tile(states, own, again) for states, own in tiles])

    def _tile(self, hidden: Tensor, labels: Tensor, again: bool) -> Tensor:
        """Log-probs of one tile; of several, logits are computed ``again`` for the gradient rather than kept."""

        def run(hidden: Tensor) -> Tensor:
            return _picked(self.logits(hidden), labels)[0]

        if not again:
            return run(hidden)
        found: Tensor = checkpoint(run, hidden, use_reentrant=False, preserve_rng_state=False)
        return found


def _picked(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) log-probabilities of labels and (n,) normalisers: in one way, so that equal models score equal digits."""
    normaliser = logits.logsumexp(1)
    return logits.gather(1, labels[:, None])[:, 0] - normaliser, normaliser


class _FrozenHead(torch.autograd.Function):
    """Log-probs of labels under a projection that is not trained.

    Its gradient to a hidden state is a fixed direction times the gradient of that log-prob. The direction is made while
    the logits are there, which spares keeping them or computing them twice.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, labels: Tensor, head: Head, rows: int) -> Tensor:
        module = head.module
        assert isinstance(module, torch.nn.Linear)
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else module.weight.dtype
        weight = module.weight.to(dtype)
        bias = None if module.bias is None else module.bias.to(dtype)
        logps, directions = [], []
        for part, label in zip(torch.split(hidden, rows), torch.split(labels, rows), strict=True):
            logits = linear(part.to(dtype), weight, bias)
            logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
            slope = head.scale / head.temperature
            if head.softcap is not None:
                capped = logits.mul_(head.scale / head.softcap).tanh_()
                bend = 1.0 - capped.square()
                logits = capped.mul_(head.softcap / head.temperature)
            elif slope != 1.0:
                logits = logits.mul_(slope)
            own, normaliser = _picked(logits, label)
            logps.append(own)
            # d logp / d logit: one for the label, less the probability of each token.
            pull = logits.sub_(normaliser[:, None]).exp_().neg_()
            pull.scatter_add_(1, label[:, None], torch.ones_like(own)[:, None])
            if head.softcap is not None:
                pull.mul_(bend)
            directions.append((pull.to(dtype) @ weight).mul_(slope))
        ctx.save_for_backward(torch.cat(directions))
        ctx.dtype = hidden.dtype
        return torch.cat(logps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (direction,) = ctx.saved_tensors
        return (gradient[:, None] * direction).to(ctx.dtype), None, None, None
