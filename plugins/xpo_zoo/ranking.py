"""What the methods on scored lists share: who is better than whom, and who comes first.

Shapes: G groups of up to K completions; ``real`` is True where a group has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from xpo import DataError, Group


def scored(groups: Sequence[Group], column: str = "scores") -> list[Group]:
    """The groups as they are, once it is certain that every completion has a score.

    Raises:
        DataError: a score is missing; a loss would turn it into NaN weights.
    """
    for group in groups:
        for number, completion in enumerate(group.completions, 1):
            if completion.score is None or not math.isfinite(completion.score):
                raise DataError(
                    f"row {group.row}: the column {column} holds no number for completion {number} of "
                    f"{len(group.completions)} (it is {completion.score}); score every one, or leave this one out"
                )
    return list(groups)


def beats(scores: Tensor, real: Tensor) -> Tensor:
    """(G, K, K) True where completion i has a strictly higher score than completion j."""
    both = real[:, :, None] & real[:, None, :]
    return both & (scores[:, :, None] > scores[:, None, :])


def tied(scores: Tensor, real: Tensor) -> Tensor:
    """(G,) True where all scores of a group are equal, so that nothing is preferred to anything."""
    highest = scores.masked_fill(~real, -math.inf).amax(-1)
    return highest == scores.masked_fill(~real, math.inf).amin(-1)


def ranks(values: Tensor, real: Tensor, order: Tensor | None = None) -> Tensor:
    """(G, K) ranks by falling value, from 1; completions that are not there come last.

    Args:
        order: (G, K) numbers of which the lower one goes first among equal values; by default the index.
    """
    values = values.detach().masked_fill(~real, -math.inf)
    if order is None:
        order = torch.arange(values.shape[-1], device=values.device).expand_as(values)
    higher = values[:, None, :] > values[:, :, None]
    equal = values[:, None, :] == values[:, :, None]
    return 1 + (higher | (equal & (order[:, None, :] < order[:, :, None]))).sum(-1)


def listed_log_softmax(values: Tensor, real: Tensor) -> Tensor:
    """(G, K) log softmax over the completions of each list; 0 where there is none, which keeps gradients finite."""
    return values.masked_fill(~real, -math.inf).log_softmax(-1).masked_fill(~real, 0.0)
