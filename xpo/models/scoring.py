"""The one forward: what a causal language model says about every completion of a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from xpo.api.batch import Batch, Scores
from xpo.models.layout import Rows, padded

Model = torch.nn.Module


def score(model: Model, batch: Batch, *, bare: Model | None = None, temperature: float = 1.0) -> Scores:
    """Token log-probabilities of all completions of ``batch``, with gradient where a completion is trainable.

    Args:
        model: the model to call for completions with gradient; a distributed wrapper where gradients are synchronised.
        bare: the same model without such a wrapper, for completions scored without gradient.
        temperature: logits are divided by it, as they were when the completions were sampled.
    """
    trainable = batch.trainable.nonzero().flatten()
    rest = (~batch.trainable).nonzero().flatten()
    logps = torch.zeros(batch.mask.shape, device=batch.mask.device)
    if rest.numel():
        with torch.no_grad():
            scored = _logps(bare or model, batch, padded(batch, rest), temperature)
        logps = logps.to(scored.dtype).index_copy(0, rest, scored)
    if trainable.numel():
        scored = _logps(model, batch, padded(batch, trainable), temperature)
        logps = logps.to(scored.dtype).index_copy(0, trainable, scored)
    return Scores(logps, batch.mask)


def _logps(model: Model, batch: Batch, rows: Rows, temperature: float) -> Tensor:
    """(n, T) log-probabilities of the completion tokens of ``rows``; 0 where there is none."""
    mask = batch.mask[rows.completions]
    row, token = mask.nonzero(as_tuple=True)
    # The logits at a column predict the next one: token t of a completion is read one column before its own.
    column = rows.starts[row] - 1 + token
    first = int(rows.starts.min()) - 1
    keep = rows.input_ids.shape[1] - first
    inputs: dict[str, Any] = {"input_ids": rows.input_ids, "attention_mask": rows.attention_mask, "use_cache": False}
    if _keeps_logits(type(_innermost(model)).forward):
        inputs["logits_to_keep"] = keep
    else:
        first = 0
    logits = model(**inputs).logits[row, column - first]
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
    if temperature != 1.0:
        logits = logits / temperature
    found = -cross_entropy(logits, batch.ids[rows.completions][row, token], reduction="none")
    return torch.zeros(mask.shape, dtype=found.dtype, device=found.device).index_put((row, token), found)


def _innermost(model: Model) -> Model:
    """The transformers model inside distributed and adapter wrappers."""
    while not hasattr(model, "get_input_embeddings") or hasattr(model, "get_base_model"):
        model = model.get_base_model() if hasattr(model, "get_base_model") else model.module  # type: ignore[operator,assignment]
    return model


@lru_cache(maxsize=64)
def _keeps_logits(forward: Callable[..., Any]) -> bool:
    return "logits_to_keep" in inspect.signature(forward).parameters
