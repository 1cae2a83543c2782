"""Layout: the completions of a batch as the rows a model reads.

``padded`` is one row a completion, prompt then completion, padded on the right. Masks come from lengths, so a padding
token that equals EOS does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xpo.api.batch import Batch


@dataclass(frozen=True)
class Rows:
    """Model inputs for n completions of a batch.

    Attributes:
        completions: (n,) index in the batch of the completion each row holds.
        input_ids, attention_mask: (n, L).
        starts: (n,) column of each row's first completion token; at least 1.
    """

    completions: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    starts: Tensor


def padded(batch: Batch, completions: Tensor) -> Rows:
    """One row for each of the ``completions`` (indices into the batch)."""
    sequences: list[list[int]] = []
    starts: list[int] = []
    everyone = [(group, completion) for group in batch.groups for completion in group.completions]
    for index in completions.tolist():
        group, completion = everyone[index]
        sequences.append([*group.prompt_ids, *completion.ids])
        starts.append(len(group.prompt_ids))
    width = max(map(len, sequences))
    input_ids = torch.tensor([ids + [0] * (width - len(ids)) for ids in sequences])
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in sequences])
    device = batch.mask.device
    return Rows(completions, input_ids.to(device), mask.to(device), torch.tensor(starts, device=device))
