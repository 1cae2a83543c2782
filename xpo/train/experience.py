"""What an algorithm learns from samples as they are: the columns of its ``experience``, written onto the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from xpo.api.algorithm import Algorithm
from xpo.api.batch import Batch, Scores
from xpo.api.groups import Group
from xpo.train.models import Models

#: Column of completions: their log-probabilities under the reference, which has scored them when they were sampled.
REFERENCE = "reference_logps"


def attach_experience(
    algorithm: Algorithm[Any],
    models: Models,
    parts: Sequence[Sequence[Group]],
    *,
    keep_logps: bool,
    idle: bool,
) -> None:
    """Write the columns of ``experience`` onto the completions of all parts, each of which is scored at once.

    Args:
        parts: scored samples; at least one part is not empty.
        keep_logps: also the sampling policy's log-probabilities, for steps that reuse a rollout.
        idle: they are stand-ins, which must not count.
    """
    batch = models.make_batch([group for part in parts for group in part], idle)
    pieces = [models.make_batch(part, idle) for part in parts if part]
    logps = together(batch, [models.policy(piece) for piece in pieces])
    anchor = models.anchor
    anchors = None if anchor is None else together(batch, [anchor(piece) for piece in pieces])
    columns = dict(algorithm.experience(batch, logps, anchors))
    if keep_logps:
        columns["old_logps"] = logps.logps
    if anchors is not None:
        columns[REFERENCE] = anchors.logps
    _attach(batch, columns)


def together(batch: Batch, pieces: Sequence[Scores]) -> Scores:
    """Scores of consecutive parts of ``batch`` as scores of the whole."""

    def joined(parts: Sequence[Tensor]) -> Tensor:
        table = parts[0].new_zeros(batch.mask.shape)
        start = 0
        for part in parts:
            rows, width = part.shape
            table[start : start + rows, :width] = part
            start += rows
        return table

    values = [piece.values for piece in pieces if piece.values is not None]
    return Scores(joined([piece.logps for piece in pieces]), batch.mask, values=joined(values) if values else None)


def _attach(batch: Batch, columns: dict[str, Tensor]) -> None:
    """Write per-completion numbers (C,) and per-token numbers (C, T) onto the completions themselves."""
    completions = [completion for group in batch.groups for completion in group.completions]
    lengths = batch.lengths.tolist()
    for name, values in columns.items():
        for completion, value, length in zip(completions, values.tolist(), lengths, strict=True):
            completion.columns[name] = value[:length] if isinstance(value, list) else value
