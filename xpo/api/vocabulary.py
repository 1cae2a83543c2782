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
        frozen: (n,) True where neither the state nor the projection may have a gradient; None for nowhere.
    """

    states: Tensor
    project: Callable[[Tensor], Tensor]
    frozen: Tensor | None = None

    def over(self, statistic: Callable[..., Tensor], *others: Distributions, beside: Sequence[Tensor] = ()) -> Tensor:
        """(n,) values of ``statistic``, a function of (m, V) log-probabilities, one argument for each model.

        The logits are computed again for the gradient rather than kept.

        Args:
            beside: (n,) tensors of which the statistic gets (m,) parts as its last arguments.
        """
        models = (self, *others)
        count = len(models)

        def run(*parts: Tensor) -> Tensor:
            logps = []
            for model, states, frozen in zip(models, parts, parts[count : 2 * count], strict=False):
                found = model.project(states).log_softmax(-1)
                logps.append(found if model.frozen is None else torch.where(frozen[:, None], found.detach(), found))
            return statistic(*logps, *parts[2 * count :])

        nowhere = torch.zeros(len(self.states), dtype=torch.bool, device=self.states.device)
        frozen = [nowhere if model.frozen is None else model.frozen for model in models]
        tensors = (*(model.states for model in models), *frozen, *beside)
        found = [
            checkpoint(run, *parts, use_reentrant=False, preserve_rng_state=False)
            for parts in zip(*(torch.split(tensor, TILE) for tensor in tensors), strict=True)
        ]
        return torch.cat(found) if found else self.states.new_zeros(0)

    def detach(self) -> Distributions:
        """The same without gradient, to what projects them neither."""
        return Distributions(self.states.detach(), torch.no_grad()(self.project))

    def at(self, places: Tensor) -> Distributions:
        """Those of some tokens, by their (m,) indices among the n."""
        return Distributions(self.states[places], self.project, None if self.frozen is None else self.frozen[places])

    @classmethod
    def merged(cls, parts: Sequence[tuple[Tensor, Distributions]]) -> Distributions:
        """Those of several sets of tokens, each with the (n,) places of its tokens, as one in the order of places."""
        order = torch.cat([places for places, _ in parts]).argsort()
        frozen = None
        if any(part.frozen is not None for _, part in parts):
            frozen = torch.cat(
                [
                    torch.zeros_like(places, dtype=torch.bool) if part.frozen is None else part.frozen
                    for places, part in parts
                ]
            )[order]
        return cls(torch.cat([part.states for _, part in parts])[order], parts[0][1].project, frozen)
