"""``Outcome``: loss and gradient of a micro-batch by place, so that those of other batches can be held against it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from xpo.api.batch import Batch
from xpo.api.loss import Loss
from xpo.testing.speech import Speech

#: (row of the data, position of the completion in its group).
Place = tuple[int, int]


@dataclass
class Outcome:
    """What came of a micro-batch, or of a step.

    Attributes:
        loss: its share of the step.
        returned: what the algorithm returned.
        batch, policy, reference: what it was given; of a step that of the last micro-batch.
        changed: what of that it wrote into.
        gradient: d loss / d what the policy says, by place and kind of number: a row for each completion.
        pull: by place what gradient descent does to the log-probability of each token, or to the reward; positive where
            it rises.
    """

    loss: float
    returned: Loss
    batch: Batch
    policy: Speech
    reference: Speech | None
    changed: list[str] = field(default_factory=list)
    gradient: dict[tuple[Place, str], Tensor] = field(default_factory=dict)
    pull: dict[Place, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.gradient:
            return
        batch, leaves = self.batch, self.policy.leaves
        ends = batch.lengths.cumsum(0).tolist()
        everyone = [(group.row, k, one.ids) for group in batch.groups for k, one in enumerate(group.completions)]
        for number, (row, k, ids) in enumerate(everyone):
            tokens = slice(ends[number] - len(ids), ends[number])
            for name, leaf in leaves.items():
                slopes = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
                own = {"rewards": slice(number, number + 1), "logits": tokens}.get(name)
                own_slopes = slopes[number, : len(ids)] if own is None else slopes[own]
                self.gradient[(row, k), name] = own_slopes.double()
            chances = leaves["logits"].detach().double()[tokens].softmax(-1) if "logits" in leaves else None
            self.pull[row, k] = self._pull((row, k), ids, chances)

    def _pull(self, place: Place, ids: Sequence[int], chances: Tensor | None) -> Tensor:
        if chances is None:
            return -self.gradient[place, "rewards" if "rewards" in self.policy.leaves else "logps"]
        # A step against the gradient moves log p_t by its product with the slope of log p_t: 1 - p at t, -p beside it.
        slopes = one_hot(torch.tensor(ids, dtype=torch.long), chances.shape[1]) - chances
        return -(self.gradient[place, "logits"] * slopes).sum(-1)

    @property
    def largest(self) -> float:
        """The largest pull on any token."""
        return max((float(pull.abs().max()) for pull in self.pull.values() if pull.numel()), default=0.0)


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of a step from those of its micro-batches."""
    return replace(
        outcomes[-1],
        loss=sum(one.loss for one in outcomes),
        gradient={place: slopes for one in outcomes for place, slopes in one.gradient.items()},
        pull={place: pull for one in outcomes for place, pull in one.pull.items()},
    )


def difference(one: Outcome, other: Outcome) -> float:
    """How far two outcomes are apart in loss and gradient, relative to the larger of them; 0 for the same."""
    if one.gradient.keys() != other.gradient.keys():
        return math.inf
    if not one.gradient:
        return relative(one.loss, other.loss)
    if any(slopes.shape != other.gradient[place].shape for place, slopes in one.gradient.items()):
        return math.inf
    both = [torch.cat([some.gradient[place].flatten() for place in one.gradient]) for some in (one, other)]
    scale = float(torch.stack(both).abs().max())
    # A loss that is nothing but rounding, as that of centred advantages, is no smaller than its gradient.
    apart = relative(one.loss, other.loss, least=scale)
    return max(apart, float((both[0] - both[1]).abs().max()) / scale) if scale else apart


def relative(one: float, other: float, least: float = 0.0) -> float:
    """Difference of two numbers relative to the larger, or to ``least``; 0 for equal ones, numbers or not."""
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    return abs(one - other) / max(abs(one), abs(other), least)
