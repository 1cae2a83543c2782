"""The tensors that a loss is given, and which of them it has written into."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from xpo.api.batch import Batch
from xpo.testing.speech import Speech


def versions(batch: Batch, policy: Speech, reference: Speech | None) -> dict[str, tuple[Tensor, int]]:
    """The inputs of a loss, and how often each has been written into."""
    return {name: (tensor, tensor._version) for name, tensor in _inputs(batch, policy, reference).items()}


def changed_of(
    before: Mapping[str, tuple[Tensor, int]], batch: Batch, policy: Speech, reference: Speech | None
) -> list[str]:
    """Names of the inputs that have been written into, or are there only now."""
    written = [name for name, (tensor, version) in before.items() if tensor._version != version]
    return written + [name for name in _inputs(batch, policy, reference) if name not in before]


def _inputs(batch: Batch, policy: Speech, reference: Speech | None) -> dict[str, Tensor]:
    """Every tensor that a loss is given, by what it is called."""
    words = ("group", "ids", "mask", "trainable", "chosen", "rejected", "labels", "scores")
    found: dict[str, Tensor | None] = {f"batch.{word}": getattr(batch, word) for word in words}
    found |= {f"batch.columns['{name}']": values for name, values in batch.columns.items()}
    found |= {f"batch.group_columns['{name}']": values for name, values in batch.group_columns.items()}
    for who, speech in (("policy", policy), ("reference", reference)):
        if speech is not None:
            found |= {f"{who}.{word}": getattr(speech.scores, word) for word in ("logps", "values", "rewards")}
    return {name: tensor for name, tensor in found.items() if tensor is not None}
