"""The models of a run and the processes they are on, as rollouts use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from xpo.api.batch import Batch, Scores
from xpo.api.groups import Group
from xpo.models.reference import Reference

MakeBatch = Callable[[Sequence[Group], bool], Batch]
Score = Callable[[Batch], Scores]


@dataclass(frozen=True)
class Models:
    """What rollouts ask of the loop.

    Attributes:
        bare: the policy without distributed wrapper.
        reference: the reference, where there is one.
        policy, anchor: log-probabilities of a batch under the policy and under the reference, without gradient.
        make_batch: lays groups out; the second argument says that they must not count.
        gather: what every rank gives, in the order of ranks.
        world, rank: number of ranks, and this one.
    """

    bare: torch.nn.Module
    reference: Reference | None
    policy: Score
    anchor: Score | None
    make_batch: MakeBatch
    gather: Callable[[Any], list[Any]]
    world: int = 1
    rank: int = 0
