"""What is known about a run before its model is loaded, and how what it takes is told: the words of a rehearsal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from xpo.api.batch import Batch
from xpo.api.groups import Group
from xpo.compat import attention_of
from xpo.models.guard import reach, to_compare, with_stand_ins
from xpo.models.layout import Tree, padded
from xpo.models.masks import no_tree
from xpo.models.outline import Outline
from xpo.models.scoring import Engine, Model, innermost, keeps_logits

#: Makes an optimiser for some parameters.
MakeOptimiser = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Terms:
    """How a run computes.

    Attributes:
        layout: ``tree`` or ``padded``.
        device: kind of the device, such as ``cpu``.
        precision: autocast to this type; None for that of the weights.
        reference: whether there is one.
        given: outline of a reference that is another model; else it is the policy as it starts.
        vocabulary: whether the loss reads full distributions.
        values: whether a value model is trained beside the policy.
        accumulates: whether gradients of earlier micro-batches are there.
        dropout: whether dropout is left on.
        checkpointing: training arguments, if activations are computed again for the gradient.
        optimiser: makes one; None where it could not be made.
    """

    layout: str = "tree"
    device: str = "cpu"
    precision: torch.dtype | None = None
    reference: bool = False
    given: Outline | None = None
    vocabulary: bool = False
    values: bool = False
    accumulates: bool = False
    dropout: bool = False
    checkpointing: Any = None
    optimiser: MakeOptimiser | None = None


@dataclass(frozen=True)
class Sampled:
    """Completions sampled at once: how many, the longest prompt, and the most tokens of a completion."""

    rows: int
    prompt: int
    tokens: int


@dataclass(frozen=True)
class Passes:
    """What goes through the model; of each kind the heaviest.

    Attributes:
        trained: batches that are trained on.
        checked: batches by which the guard compares layouts, before training.
        scored: batches that are examined or evaluated.
        sampled: what is sampled.
        again: whether the model as it started is loaded once more at the end.
    """

    trained: Sequence[Batch]
    checked: Sequence[Batch] = ()
    scored: Sequence[Batch] = ()
    sampled: Sequence[Sampled] = ()
    again: bool = False


def expected_engine(model: Model, layout: str, device: str) -> Engine:
    """How completions will be computed, unless the guard finds that it is not exact."""
    inner = innermost(model)
    compact = keeps_logits(type(inner).forward)
    if layout == "padded" or no_tree(inner) is not None:
        return Engine(padded, compact)
    return Engine(Tree(reach(model)), compact, branches=device == "cpu" and attention_of(inner) == "sdpa")


def compared(groups: Sequence[Group]) -> Batch:
    """The batch by which the guard compares layouts, of the groups it is given."""
    return Batch.of(to_compare([with_stand_ins(group) for group in groups]))
