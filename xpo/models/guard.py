"""The exactness guard: use the cheap way of computing only where it says what the plain way says.

Before training, some completions are scored both ways. What differs by more than float noise is not used, and one line
says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from xpo.api.batch import Batch
from xpo.api.groups import Completion, Group
from xpo.compat import attention_of
from xpo.errors import ModelError
from xpo.models.layout import Tree, padded
from xpo.models.masks import no_tree
from xpo.models.scoring import Engine, Model, assemble, backbone, forward, innermost, keeps_logits, text_config

#: Largest difference of a token's log-probability that float32 rounding is taken to explain.
TOLERANCE = 1e-4
#: Positions of padded rows that the comparison computes at most, besides the longest group.
POSITIONS = 2048


def choose_engine(model: Model, groups: Sequence[Group], layout: str, device: torch.device) -> tuple[Engine, list[str]]:
    """The cheapest exact way to compute completions with ``model``, and lines about what could not be used.

    Args:
        model: as it starts, without distributed wrapper.
        groups: groups with completions, those of the first batch first, and among them the longest.
        layout: the layout that is wanted, ``tree`` or ``padded``.

    Raises:
        ModelError: it says NaN.
    """
    lines: list[str] = []
    groups = [with_stand_ins(group) for group in groups]
    engine = Engine(padded, compact=keeps_logits(type(innermost(model)).forward))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            few = Batch.of([_short(min(groups, key=attrgetter("length")), 1)], device=device)
            reason = _difference(model, few, engine, Engine(padded)) if engine.compact else None
            if reason is not None:
                lines.append(f"head: the model's own logits, since the compact head differs from them ({reason})")
                engine = replace(engine, compact=False)
            if layout == "tree":
                tree = replace(engine, arrange=Tree(reach(model)))
                reason = no_tree(innermost(model))
                batch = Batch.of(to_compare(groups), device=device)
                if reason is None:
                    reason = _difference(model, batch, tree, engine)
                if reason is None:
                    # On a GPU one wide product is faster than many narrow ones.
                    along = replace(tree, branches=device.type == "cpu" and attention_of(innermost(model)) == "sdpa")
                    if along.branches and _difference(model, batch, along, engine) is None:
                        return along, lines
                    return tree, lines
                lines.append(f"layout: padded, since trees cannot be used with this model: {reason}")
    finally:
        model.train(training)
    return engine, lines


def reach(model: Model) -> float:
    """Row width at which attention over a whole row costs as much as the weights of a layer: see ``Tree``."""
    inner: Any = innermost(model)  # torch types every attribute
    config = text_config(model)
    layers, width = int(config.num_hidden_layers), int(config.hidden_size)
    embedded = {id(parameter) for parameter in inner.get_input_embeddings().parameters()}
    weights = sum(one.numel() for one in backbone(inner).parameters() if id(one) not in embedded)
    # 2 multiply-adds a weight and token against 4 L width; looking is about half as fast as multiplying.
    return max(weights / layers / width / 4.0, 64.0)


def _difference(model: Model, batch: Batch, one: Engine, other: Engine) -> str | None:
    """How two ways of computing differ, in words; None when rounding explains it."""
    everything = torch.arange(len(batch), device=batch.mask.device)
    expected = _said(model, batch, everything, other)
    if bool(expected.isnan().any()):
        inner: Any = innermost(model)  # torch types every attribute
        raise ModelError(
            f"the model {inner.config.name_or_path or type(inner).__name__} says NaN of the data as it is loaded: its "
            "weights are broken, or it computes in too few digits; try --dtype float32, or another model"
        )
    try:
        found = _said(model, batch, everything, one)
    except Exception as error:  # a model may refuse what it was not made for in any way it likes
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
    differences = (found - expected).abs()
    largest = float(differences.max()) if differences.numel() else 0.0
    if largest <= TOLERANCE:
        return None
    # Numbers of fewer digits differ by more. How much is seen when rows are computed one at a time, which changes
    # nothing but the order of sums.
    alone = [_said(model, batch, index[None], other) for index in everything]
    noise = (torch.stack(alone).sum(0) - expected).abs()
    if largest <= 8.0 * float(noise.max()) and float(differences.mean()) <= 3.0 * float(noise.mean()):
        return None
    return f"log-probabilities differ by up to {largest:.1g}"


def _said(model: Model, batch: Batch, completions: Tensor, engine: Engine) -> Tensor:
    """What a model says about some completions, in a row: log-probabilities, or rewards; 0 of the others."""
    scores = assemble(batch, [forward(model, batch, completions, engine)])
    return (scores.logps[batch.mask] if scores.rewards is None else scores.rewards).double()


def to_compare(groups: Sequence[Group]) -> list[Group]:
    """The longest group, and as many of the first ones as the comparison has room for."""
    longest = max(groups, key=attrgetter("length"))
    chosen, room = [_short(longest, 2)], POSITIONS
    for group in groups:
        room -= len(group.completions) * group.length
        if room < 0:
            break
        if group is not longest:
            chosen.append(group)
    return chosen


def with_stand_ins(group: Group) -> Group:
    """A prompt that is yet to be answered, with two stand-ins for completions."""
    if group.completions:
        return group
    ids = group.prompt_ids
    return replace(group, completions=[Completion(list(ids[:32])), Completion(list(reversed(ids[-24:])))])


def _short(group: Group, most: int) -> Group:
    return replace(group, completions=list(group.completions[:most]), pairs=[])
