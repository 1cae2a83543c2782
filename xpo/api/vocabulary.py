"""``Distributions``: the full next-token distributions behind the log-probs of a batch, a tile at a time.

Only algorithms that declare ``Needs(vocabulary=True)`` get them. (tokens x vocabulary) is never held at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

#: Distributions computed at once; each holds a number for every token of the vocabulary.
TILE = 256


@dataclass(frozen=True)
class Distributions:
    """One distribution for every completion token.

    Attributes:
        states: (n, d) what ``project`` turns into logits, in the order of the tokens of the batch.
        project: (m, d) states to (m, V) logits.
    """

    states: Tensor
    project: Callable[[Tensor], Tensor]

    def over(self, statistic: Callable[..., Tensor], *others: Distributions, beside: Sequence[Tensor] = ()) -> Tensor:
        """(n,) values of ``statistic``, a function of (m, V) log-probabilities, one argument for each model.

        The logits are computed again for the gradient rather than kept.

        Args:
            beside: (n,) tensors of which the statistic gets (m,) parts as its last arguments.
        """
        models = (self, *others)

        def run(*parts: Tensor) -> Tensor:
            logps = [model.project(part).log_softmax(-1) for model, part in zip(models, parts, strict=False)]
            return statistic(*logps, *parts[len(models) :])

        tensors = (*(model.states for model in models), *beside)
        found = [
            checkpoint(run, *parts, use_reentrant=False, preserve_rng_state=False)
            for parts in zip(*(torch.split(tensor, TILE) for tensor in tensors), strict=True)
        ]
        return torch.cat(found) if found else self.states.new_zeros(0)

    def detach(self) -> Distributions:
        """The same without gradient."""
        return Distributions(self.states.detach(), self.project)

    def at(self, places: Tensor) -> Distributions:
        """Those of some tokens, by their (m,) indices among the n."""
        return Distributions(self.states[places], self.project)

    @classmethod
    def merged(cls, parts: Sequence[tuple[Tensor, Distributions]]) -> Distributions:
        """Those of several sets of tokens, each with the (n,) places of its tokens, as one in the order of places."""
        order = torch.cat([places for places, _ in parts]).argsort()
        return cls(torch.cat([part.states for _, part in parts])[order], parts[0][1].project)
