"""Stretches: the rows of trees cut where they branch, and which of the pieces are looked at in one call.

A call costs as much as some thousand products of a query with a key. Short stretches therefore share calls, in which
they are filled up to the largest. A long stretch keeps a call of its own, where nothing is filled up or copied twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from xpo.models.layout import Layout

#: Pairs of a query and a key from which on a stretch is long.
LONG = 8_192
#: Pairs that take as long as one more call.
CALL = 300


@dataclass(frozen=True)
class Stretch:
    """A piece of a row without branches.

    Attributes:
        start: its first position, counted through all rows.
        size: its length.
        past: numbers of the stretches it continues, in order; None for the end of a row, which holds no tokens.
        before: how many tokens these hold.
    """

    start: int
    size: int
    past: tuple[int, ...] | None
    before: int = 0

    @property
    def positions(self) -> range:
        """Of its tokens, counted through all rows."""
        return range(self.start, self.start + self.size)

    @property
    def seen(self) -> int:
        """How many tokens its last one sees, itself included."""
        return self.before + self.size

    @property
    def long(self) -> bool:
        """Whether it is worth a call of its own."""
        return self.past is not None and self.size * self.seen >= LONG


def cut(layout: Layout) -> list[Stretch]:
    """The stretches of all rows of trees, one after the other: tokens of one are continued up to the same column."""
    assert layout.ends is not None
    width = layout.input_ids.shape[1]
    found: list[Stretch] = []
    for row, (ends, length) in enumerate(zip(layout.ends.tolist(), layout.real.sum(1).tolist(), strict=True)):
        starts = [column for column in range(length) if not column or ends[column] != ends[column - 1]]
        open_: list[tuple[int, int]] = []  # (number, last column that continues it) of what may be continued
        for start, stop in zip(starts, [*starts[1:], length], strict=True):
            while open_ and open_[-1][1] < start:
                open_.pop()
            past = tuple(number for number, _ in open_)
            before = found[past[-1]].seen if past else 0
            found.append(Stretch(row * width + start, stop - start, past, before))
            open_.append((len(found) - 1, ends[start]))
        if length < width:
            found.append(Stretch(row * width + length, width - length, None))
    return found


@dataclass
class Bundle:
    """Short stretches that share a call.

    Attributes:
        members: their numbers.
        size, seen: what the queries and the keys of each are filled up to.
    """

    members: list[int]
    size: int
    seen: int


def bundles(stretches: Sequence[Stretch]) -> list[Bundle]:
    """The short stretches in calls that they share: each joins the call that it makes least dearer, or opens one."""
    made: list[Bundle] = []
    short = [number for number, one in enumerate(stretches) if one.past is not None and not one.long]
    # The largest come first, so that a call once opened is wide enough for what follows.
    for number in sorted(short, key=lambda number: (-stretches[number].size, -stretches[number].seen, number)):
        size, seen = stretches[number].size, stretches[number].seen
        dearer = [
            bundle.size * ((len(bundle.members) + 1) * max(bundle.seen, seen) - len(bundle.members) * bundle.seen)
            for bundle in made
        ]
        if not made or min(dearer) > size * seen + CALL:
            made.append(Bundle([number], size, seen))
            continue
        chosen = made[dearer.index(min(dearer))]
        chosen.members.append(number)
        chosen.seen = max(chosen.seen, seen)
    return made


@dataclass(frozen=True)
class Shared:
    """The calls that short stretches share: what they read, and where it goes.

    Attributes:
        bundles: one a call.
        queries, keys: positions, counted through all rows, that all calls read one after the other.
        outputs: of every position that belongs to no long stretch, in order, the place among ``queries``; where there
            is no token, the place behind them all.
        runs: how many of these lie between one long stretch and the next.
        before, sizes: of each bundle, (B,) of its stretches.
    """

    bundles: Sequence[Bundle]
    queries: Tensor
    keys: Tensor
    outputs: Tensor
    runs: list[int]
    before: Sequence[Tensor]
    sizes: Sequence[Tensor]

    @classmethod
    def of(cls, stretches: Sequence[Stretch], device: torch.device) -> Shared:
        made = bundles(stretches)
        queries: list[int] = []
        keys: list[int] = []
        places: dict[int, range] = {}
        for bundle in made:
            for number in bundle.members:
                own = stretches[number]
                assert own.past is not None
                places[number] = range(len(queries), len(queries) + own.size)
                queries.extend(own.positions)
                for past in own.past:
                    keys.extend(stretches[past].positions)
                keys.extend(own.positions)
                # What is filled up is filled with its last token: nobody reads what that finds, or looks at it again.
                queries.extend([own.positions[-1]] * (bundle.size - own.size))
                keys.extend([own.positions[-1]] * (bundle.seen - own.seen))
        outputs: list[int] = []
        for number, own in enumerate(stretches):
            outputs.extend([len(queries)] * own.size if own.past is None else places.get(number, ()))
        runs = [
            sum(one.size for one in some) for is_long, some in groupby(stretches, lambda one: one.long) if not is_long
        ]

        def tensor(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        return cls(
            made,
            tensor(queries),
            tensor(keys),
            tensor(outputs),
            runs,
            [tensor([stretches[number].before for number in bundle.members]) for bundle in made],
            [tensor([stretches[number].size for number in bundle.members]) for bundle in made],
        )
