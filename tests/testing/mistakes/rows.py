"""Data that is not as one thinks, and rows that collate loses."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tests.testing.mistakes.building import Mistake, wrong
from tests.testing.strangers import Labels, Lists, Pairs, Rollouts
from xpo import Algorithm, Batch, Group


def with_collate(collate: Callable[[list[Group]], Sequence[Group]], **members: Any) -> type[Algorithm[Any]]:
    return wrong(Pairs, collate=lambda self, groups: collate(list(groups)), **members)


def _one_class(self: Any, batch: Batch, rewards: Tensor) -> Tensor:
    """Compared with the mean of the undesirable, of which there may be none."""
    return Labels.losses(self, batch, rewards - rewards[~batch.labels].mean().detach())


def _first_two(self: Any, batch: Batch, logps: Tensor) -> Tensor:
    listed, scores = batch.lists(logps), batch.lists(batch.scores)
    return -logsigmoid((listed[:, 0] - listed[:, 1]) * (scores[:, 0] - scores[:, 1]).sign())


def _stacked(self: Any, batch: Batch, logps: Tensor) -> Tensor:
    """Lists that are all of one length."""
    members = [(batch.group == number).nonzero().flatten() for number in range(len(batch.groups))]
    index = torch.stack(members)
    return -(batch.scores[index].softmax(-1) * logps[index].log_softmax(-1)).sum(-1)


def _standardised_list(self: Any, scores: Tensor, real: Tensor) -> Tensor:
    count = real.sum(-1, keepdim=True)
    centred = (scores - scores.sum(-1, keepdim=True) / count).masked_fill(~real, 0.0)
    return (centred / centred.square().sum(-1, keepdim=True).sqrt()).masked_fill(~real, -1e4).softmax(-1)


def _unguarded(self: Any, batch: Batch, rewards: Tensor) -> Tensor:
    listed = batch.lists(batch.scores)
    standard = (listed - listed.mean(-1, keepdim=True)) / listed.std(-1, keepdim=True)
    return batch.unlists(standard) + rewards - batch.scores


def _without_columns(groups: list[Group]) -> list[Group]:
    return [Group(group.prompt_ids, group.completions, group.pairs, group.row) for group in groups]


def _margin(self: Any, batch: Batch, margins: Tensor) -> Tensor:
    shift = batch.group_columns.get("margin", torch.zeros(len(margins)))
    return Pairs.losses(self, batch, margins - shift.nan_to_num())


def _draw(groups: list[Group]) -> list[Group]:
    return [replace(group, completions=list(group.completions)) for group in random.sample(groups, len(groups))]


MARGIN = {"columns": ("margin",)}


def _append(groups: list[Group]) -> list[Group]:
    for group in groups:
        group.completions.append(replace(group.completions[0], role="again", trainable=False))
    return groups


ROWS: dict[str, Mistake] = {
    "labels: one class": (wrong(Labels, losses=_one_class), "finite loss", "desirable completions only) is nan"),
    "lists: the first two": (wrong(Lists, losses=_first_two), "gradient", "neither the first nor the second"),
    "lists: unequal lengths": (wrong(Lists, losses=_stacked), "finite loss", "prompts differ in how many they have"),
    "lists: ties": (
        wrong(Lists, target=_standardised_list),
        "finite loss",
        "the same score, so that their deviation is 0",
    ),
    "rollouts: no deviation": (
        wrong(Rollouts, advantages=_unguarded),
        "finite loss",
        "the same score, so that their deviation is 0",
    ),
    "collate: another order": (with_collate(lambda groups: groups[::-1]), "collate", "in the same order"),
    "collate: an order of chance": (with_collate(_draw), "collate", "in the same order"),
    "collate: in place": (with_collate(_append), "collate", "changes the groups it is given, and makes something else"),
    "collate: rows dropped": (with_collate(lambda groups: groups[:-1]), "collate", "return as many groups"),
    "collate: columns dropped": (
        with_collate(_without_columns, losses=_margin),
        "collate",
        "collate drops the columns 'margin'",
    ),
    "a column that rows may lack": (
        wrong(Pairs, losses=lambda s, b, m: (b.group_columns.get("margin", torch.ones(())) - m).clamp_min(0), **MARGIN),
        "needs",
        "the loss is NaN where rows lack the column 'margin'",
    ),
    "a column that is not read": (
        wrong(Pairs, **MARGIN),
        "needs",
        "the column 'margin' is declared but changes nothing",
    ),
}
