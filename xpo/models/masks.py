"""What attention needs to see a tree: the mask in the form that a model and its attention take."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from xpo.compat import attention_of, block_mask
from xpo.models.branches import BRANCHES, Branches
from xpo.models.layout import Layout, sees

#: Kinds of layers whose mask can be written down from positions.
FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"


def no_tree(inner: torch.nn.Module) -> str | None:
    """Why a model cannot be given trees, as far as its class tells; None when it may try."""
    arguments = inspect.signature(type(inner).forward).parameters
    if "attention_mask" not in arguments:
        return "it takes no attention mask"
    if "position_ids" not in arguments:
        return "it takes no positions"
    config: Any = inner.config
    strange = sorted(
        {str(kind) for kind in getattr(config.get_text_config(), "layer_types", None) or ()} - {FULL, SLIDING, CHUNKED}
    )
    if strange:
        return f"it has layers of {', '.join(strange)}"
    kind = attention_of(inner)
    if kind not in ("eager", "sdpa", "flex_attention", BRANCHES):
        return f"{kind} takes no such mask; --attn_implementation sdpa does"
    return None


def masks(inner: torch.nn.Module, layout: Layout) -> Any:
    """The attention mask of a tree: one tensor, or one for each kind of layer where a model mixes them."""
    config: Any = inner.config
    config = config.get_text_config()
    window, chunk = getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds:  # models of one kind of layer do not say which; a window in the settings is used
        kinds = {SLIDING if window is not None else FULL}
    made = {
        kind: _mask(inner, layout, window if kind == SLIDING else None, chunk if kind == CHUNKED else None)
        for kind in sorted(kinds)
    }
    return made if len(made) > 1 else next(iter(made.values()))


def _mask(inner: torch.nn.Module, layout: Layout, window: int | None, chunk: int | None) -> Any:
    kind = attention_of(inner)
    if kind == "flex_attention":
        return _blocks(layout, window, chunk)
    seen = layout.visible(window, chunk)[:, None]
    if kind == BRANCHES:
        seen.branches = Branches.of(layout, window, chunk)  # type: ignore[attr-defined]  # a mask is all that gets there
    if kind in ("sdpa", BRANCHES):
        return seen
    dtype: torch.dtype = inner.dtype  # type: ignore[assignment]  # torch types every attribute
    least = torch.finfo(dtype).min
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, least)


def _blocks(layout: Layout, window: int | None, chunk: int | None) -> Any:
    """The same as a function of indices, of which FlexAttention skips the blocks that are empty."""
    ends, positions = layout.ends, layout.positions
    assert ends is not None

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return sees(ends[row, key], positions[row, key], key, positions[row, query], query, window, chunk)

    rows, width = layout.input_ids.shape
    return block_mask(seen, rows, width, layout.input_ids.device)
