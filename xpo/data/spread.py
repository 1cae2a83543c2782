"""Spread the rows of one optimiser step over its micro-batches and ranks by length; the step stays what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

#: ``kept``: in order. ``alike``: long rows with long ones, for little padding. ``even``: every part as much, for rows
#: that are packed.
Spread = Literal["kept", "alike", "even"]

#: Steps whose rows are sorted together when steps themselves are to be of similar rows.
BLOCK = 50


def spread(lengths: Sequence[int], micros: Sequence[Sequence[int]], how: Spread) -> list[list[list[int]]]:
    """Positions in the step for each micro-batch and rank.

    Args:
        lengths: tokens of each row of the step.
        micros: how many rows each rank gets of each micro-batch.
        how: by which rule.
    """
    rows = list(range(len(lengths)))
    if how == "kept":
        return [_cut(part, sizes) for part, sizes in zip(_cut(rows, list(map(sum, micros))), micros, strict=True)]
    rows.sort(key=lambda row: -lengths[row])
    if how == "even":
        flat = [size for sizes in micros for size in sizes]
        parts = iter(_dealt(rows, lengths, flat))
        return [[next(parts) for _ in sizes] for sizes in micros]
    cut = _cut(rows, list(map(sum, micros)))
    return [_dealt(part, lengths, sizes) for part, sizes in zip(cut, micros, strict=True)]


def even(total: int, parts: int) -> list[int]:
    """Sizes of so many parts of a whole, as even as can be."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def _cut(rows: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(list(rows[start : start + size]))
        start += size
    return parts


def _dealt(rows: Sequence[int], lengths: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Rows, longest first, each to the part that has the fewest tokens so far and room for it."""
    parts: list[list[int]] = [[] for _ in sizes]
    tokens = [0] * len(sizes)
    for row in rows:
        open_ = [part for part, size in enumerate(sizes) if len(parts[part]) < size]
        part = min(open_, key=lambda number: (tokens[number], number))
        parts[part].append(row)
        tokens[part] += lengths[row]
    return [sorted(part) for part in parts]


def by_length(order: Sequence[int], lengths: Sequence[int], step: int) -> list[list[int]]:
    """Cut a shuffled order into steps of rows of similar length: sorted within blocks of steps, the longest first."""
    steps: list[list[int]] = []
    for start in range(0, len(order), step * BLOCK):
        block = sorted(order[start : start + step * BLOCK], key=lambda row: -lengths[row])
        steps += [block[at : at + step] for at in range(0, len(block), step)]
    return steps
