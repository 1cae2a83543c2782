"""Held-out preferences judged the same way whoever trained: with transformers alone, one row a completion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

#: Completions scored at once.
_ROWS = 16


def accuracy(start: str, trained: str, held_out: str) -> float:
    """Share of pairs whose chosen completion gained more log-probability than the rejected one: the implicit reward."""
    pairs = json.loads(Path(held_out).read_text(encoding="utf-8"))
    sequences = [(pair["prompt"], pair[role]) for pair in pairs for role in ("chosen", "rejected")]
    gains = [
        after - before for before, after in zip(*(_logps(name, sequences) for name in (start, trained)), strict=True)
    ]
    right = sum(chosen > rejected for chosen, rejected in zip(gains[::2], gains[1::2], strict=True))
    return int(right) / len(pairs)


@torch.no_grad()
def _logps(name: str, sequences: list[tuple[list[int], list[int]]]) -> list[float]:
    model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
    found: list[float] = []
    for first in range(0, len(sequences), _ROWS):
        some = sequences[first : first + _ROWS]
        width = max(len(prompt) + len(completion) for prompt, completion in some)
        ids, mask, counted = (torch.zeros(len(some), width, dtype=torch.long) for _ in range(3))
        for row, (prompt, completion) in enumerate(some):
            end = len(prompt) + len(completion)
            ids[row, :end] = torch.tensor(prompt + completion)
            mask[row, :end] = 1
            counted[row, len(prompt) : end] = 1
        logps = model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
        picked = logps.gather(-1, ids[:, 1:, None]).squeeze(-1)
        found += (picked * counted[:, 1:]).sum(-1).tolist()
    return found
