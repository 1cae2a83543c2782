"""Attention along the branches of trees, for CPUs: every stretch of a row looks at its own past and at nothing else.

A mask makes attention compute all pairs of a row and throw most of them away. Here rows are cut into stretches that do
not branch; each looks at the stretches it continues and at itself. On a small model that is most of a step's time.
Long stretches are computed one by one; short ones, of which there may be hundreds, share a few calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, islice
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from xpo.models.layout import Layout
from xpo.models.stretches import Shared, Stretch, cut

#: Name of this attention among those of transformers.
BRANCHES = "xpo_branches"

#: Attention of (B, S, H, d) queries to (B, K, H, d) keys and values under a mask: (B * S, H, d).
Look = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Branches:
    """The rows of a layout, cut into stretches. All layers share it: indices and masks are made once.

    Attributes:
        stretches: of all rows, one after the other.
        shared: the calls that the short ones share.
        window, chunk: what a layer narrows its view to.
    """

    stretches: Sequence[Stretch]
    shared: Shared
    window: int | None = None
    chunk: int | None = None
    _masks: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    _shared_masks: dict[torch.dtype, list[Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, layout: Layout, window: int | None = None, chunk: int | None = None) -> Branches:
        """Cut the rows of trees."""
        stretches = cut(layout)
        return cls(stretches, Shared.of(stretches, layout.input_ids.device), window, chunk)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, dropout: float) -> Tensor:
        """(R, H, L, d) outputs of attention; zero where there is no token."""
        rows, heads, width, _ = query.shape
        # (R * L, H, d): in this order the projections of a model leave them, so that nothing is copied.
        q, k, v = (each.transpose(1, 2).flatten(0, 1) for each in (query, key, value))
        look = partial(_look, scale=scale, dropout=dropout)
        long, short = self._long(q, k, v, look), self._short(q, k, v, look)
        # In the order of positions: long stretches one by one, and what lies between them.
        pieces: list[Tensor] = []
        for is_long, some in groupby(self.stretches, attrgetter("long")):
            pieces.extend(islice(long, len(list(some))) if is_long else islice(short, 1))
        found = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
        return found.view(rows, width, heads, -1).transpose(1, 2)

    def _long(self, queries: Tensor, keys: Tensor, values: Tensor, look: Look) -> Iterator[Tensor]:
        """(size, H, d) outputs of each long stretch."""
        if not any(one.long for one in self.stretches):
            return
        sizes = [one.size for one in self.stretches]
        # By one split, whose gradient is one join.
        q, k, v = (torch.split(each, sizes) for each in (queries, keys, values))
        for number, one in enumerate(self.stretches):
            if one.long:
                seen = (*(one.past or ()), number)
                own, other = (each[number] if len(seen) == 1 else torch.cat([each[n] for n in seen]) for each in (k, v))
                yield look(q[number][None], own[None], other[None], self._mask(one, queries.device))

    def _short(self, queries: Tensor, keys: Tensor, values: Tensor, look: Look) -> Iterator[Tensor]:
        """(tokens, H, d) outputs of what lies between long stretches."""
        shared = self.shared
        found: list[Tensor] = []
        if shared.bundles:
            members = [len(one.members) for one in shared.bundles]
            q = _taken(queries, shared.queries, members, [one.size for one in shared.bundles])
            k, v = (_taken(each, shared.keys, members, [one.seen for one in shared.bundles]) for each in (keys, values))
            found = [look(*each) for each in zip(q, k, v, self._masks_of_shared(queries.dtype), strict=True)]
        if shared.runs:
            nothing = (found[0] if found else values).new_zeros(1, *values.shape[1:])
            yield from torch.split(torch.cat([*found, nothing]).index_select(0, shared.outputs), shared.runs)

    def _mask(self, one: Stretch, device: torch.device) -> Tensor | None:
        """(size, seen) what a long stretch sees of its past and of itself; None when that is plainly causal."""
        if one.before == 0 and self.window is None and self.chunk is None:
            return None
        if (one.size, one.before) not in self._masks:
            own = torch.arange(one.before, one.seen, device=device)[:, None]
            self._masks[one.size, one.before] = self._sees(own, torch.arange(one.seen, device=device))
        return self._masks[one.size, one.before]

    def _masks_of_shared(self, dtype: torch.dtype) -> list[Tensor]:
        """For each call that stretches share, (B, 1, size, seen): 0 for what is seen, the rest out of reach.

        In the type of the queries, to be made once and not in every layer.
        """
        if dtype not in self._shared_masks:
            made: list[Tensor] = []
            for bundle, before, sizes in zip(self.shared.bundles, self.shared.before, self.shared.sizes, strict=True):
                place = torch.arange(bundle.size, device=before.device)
                own = before[:, None] + torch.minimum(place, sizes[:, None] - 1)
                seen = self._sees(own[:, None, :, None], torch.arange(bundle.seen, device=before.device))
                made.append(torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf))
            self._shared_masks[dtype] = made
        return self._shared_masks[dtype]

    def _sees(self, own: Tensor, other: Tensor) -> Tensor:
        """Whether a token sees another of its sequence, by their places in it."""
        seen = other <= own
        if self.window is not None:
            seen = seen & (other > own - self.window)
        if self.chunk is not None:
            seen = seen & (other // self.chunk == own // self.chunk)
        return seen


def _taken(states: Tensor, places: Tensor, members: Sequence[int], sizes: Sequence[int]) -> list[Tensor]:
    """(B, size, H, d) for each call: B members of it, of one size."""
    counts = [count * size for count, size in zip(members, sizes, strict=True)]
    parts = torch.split(states.index_select(0, places), counts)
    return [part.view(count, -1, *part.shape[1:]) for part, count in zip(parts, members, strict=True)]


def _look(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float | None, dropout: float
) -> Tensor:
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    found = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale
    )
    return found.transpose(1, 2).flatten(0, 1)


def branch_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers, for masks that carry their branches.

    On its way through a model a mask may lose them; it still is the mask then.

    Raises:
        ValueError: the model asks for more than a mask, such as a bias of positions.
    """
    asked = [name for name in ("softcap", "position_bias", "s_aux", "head_mask") if others.get(name) is not None]
    if asked:
        raise ValueError(f"attention along branches has no {', '.join(asked)}")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        # Token by token, as ``attend`` wants them.
        key, value = (each.transpose(1, 2).repeat_interleave(groups, dim=2).transpose(1, 2) for each in (key, value))
    branches: Branches | None = getattr(attention_mask, "branches", None)
    if branches is None:
        output = scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
        )
    else:
        output = branches.attend(query, key, value, scaling, dropout)
    return output.transpose(1, 2).contiguous(), None
