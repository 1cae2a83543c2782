"""Attention along the branches of trees, for CPUs: every stretch of a row looks at its own past and at nothing else.

A mask makes attention compute all pairs of a row and throw most of them away. Here rows are cut into stretches that do
not branch; each looks at the stretches it continues and at itself. On a small model that is most of a step's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from xpo.models.layout import Layout

#: Name of this attention among those of transformers.
BRANCHES = "xpo_branches"


@dataclass(frozen=True)
class Stretch:
    """A piece of a row without branches.

    Attributes:
        size: its length.
        past: numbers of the stretches it continues, in order; None for the end of a row, which holds no tokens.
    """

    size: int
    past: tuple[int, ...] | None


@dataclass(frozen=True)
class Branches:
    """The rows of a layout, cut into stretches.

    Attributes:
        stretches: of all rows, one after the other.
        window, chunk: what a layer narrows its view to.
    """

    stretches: Sequence[Stretch]
    window: int | None = None
    chunk: int | None = None
    _masks: dict[tuple[int, int], Tensor | None] = field(default_factory=dict)

    @classmethod
    def of(cls, layout: Layout, window: int | None = None, chunk: int | None = None) -> Branches:
        """Cut the rows of trees: tokens of one stretch are those that are continued up to the same column."""
        assert layout.ends is not None
        width = layout.input_ids.shape[1]
        stretches: list[Stretch] = []
        for ends, length in zip(layout.ends.tolist(), layout.real.sum(1).tolist(), strict=True):
            starts = [column for column in range(length) if not column or ends[column] != ends[column - 1]]
            open_: list[tuple[int, int]] = []  # (number, last column that continues it) of what may be continued
            for start, stop in zip(starts, [*starts[1:], length], strict=True):
                while open_ and open_[-1][1] < start:
                    open_.pop()
                stretches.append(Stretch(stop - start, tuple(number for number, _ in open_)))
                open_.append((len(stretches) - 1, ends[start]))
            if length < width:
                stretches.append(Stretch(width - length, None))
        return cls(stretches, window, chunk)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None, dropout: float) -> Tensor:
        """(R, H, L, d) outputs of attention; zero where there is no token."""
        rows, heads, width, _ = query.shape
        queries, keys, values = (self._cut(each) for each in (query, key, value))
        outputs: list[Tensor] = []
        for number, stretch in enumerate(self.stretches):
            if stretch.past is None:
                outputs.append(torch.zeros_like(values[number]))
                continue
            seen = (*stretch.past, number)
            k, v = (
                each[number] if len(seen) == 1 else torch.cat([each[n] for n in seen], 2) for each in (keys, values)
            )
            mask = self._mask(stretch.size, k.shape[2] - stretch.size, query.device)
            outputs.append(
                scaled_dot_product_attention(
                    queries[number], k, v, attn_mask=mask, dropout_p=dropout, is_causal=mask is None, scale=scale
                )
            )
        return torch.cat(outputs, 2).view(heads, rows, width, -1).transpose(0, 1)

    def _cut(self, states: Tensor) -> tuple[Tensor, ...]:
        """(R, H, L, d) as one (1, H, size, d) a stretch, by one split, whose gradient is one join."""
        flat = states.transpose(0, 1).flatten(1, 2)[None]
        return torch.split(flat, [stretch.size for stretch in self.stretches], dim=2)

    def _mask(self, size: int, before: int, device: torch.device) -> Tensor | None:
        """(size, before + size) what a stretch sees of its past and of itself; None when that is plainly causal."""
        if before == 0 and self.window is None and self.chunk is None:
            return None
        if (size, before) not in self._masks:
            own = torch.arange(before, before + size, device=device)[:, None]
            other = torch.arange(before + size, device=device)
            seen = other <= own
            if self.window is not None:
                seen &= other > own - self.window
            if self.chunk is not None:
                seen &= other // self.chunk == own // self.chunk
            self._masks[size, before] = seen
        return self._masks[size, before]


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
        key, value = (each.repeat_interleave(groups, dim=1) for each in (key, value))
    branches: Branches | None = getattr(attention_mask, "branches", None)
    if branches is None:
        output = scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
        )
    else:
        output = branches.attend(query, key, value, scaling, dropout)
    return output.transpose(1, 2).contiguous(), None
