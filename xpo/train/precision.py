"""Weights that are trained in 16 bits themselves: which steps they can hold, and which of them were lost.

Autocast (``--bf16``, ``--fp16``) computes in 16 bits and keeps weights in 32; a model loaded in 16 bits does not. A
weight of bfloat16 has 8 binary digits: a step of less than a 500th of it is rounded away, and so is the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from xpo.errors import SettingError
from xpo.train.settings import TrainingArguments

_SHORT = (torch.bfloat16, torch.float16)
#: Weights of each parameter that are looked at, evenly spread.
WEIGHTS = 4096
#: Share of the weights that did not move. Weights of 32 bits all do, but for those of tokens that never occur.
UNMOVED = 0.5


def check_precision(model: torch.nn.Module, args: TrainingArguments) -> list[str]:
    """A line on weights that are trained in float16, which its smallest numbers make hard; none where there are none.

    Raises:
        SettingError: their loss is to be scaled, which takes gradients of 32 bits.
    """
    if not any(one.dtype == torch.float16 for _, one in _short(model)):
        return []
    if args.fp16:
        raise SettingError(
            "--fp16 scales the loss for weights kept in float32, and these are float16; load the model with "
            "--dtype float32"
        )
    return [
        "precision: weights are trained in float16 without scaling the loss: small gradients vanish, and most "
        "optimisers then divide by zero. Load the model with --dtype float32 and give --fp16, or --bf16"
    ]


class Grain:
    """A sample of the weights of 16 bits as they are before training."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._before = {name: _some(one) for name, one in _short(model)}

    def notes(self, model: torch.nn.Module, args: TrainingArguments) -> list[str]:
        """A note where most of them are what they were before; none otherwise, or where weights have 32 bits."""
        after = dict(_short(model))
        still = [(_some(after[name]) == before).tolist() for name, before in self._before.items() if name in after]
        looked = sum(map(len, still))
        if not looked:
            return []
        share = sum(map(sum, still)) / looked
        if share <= UNMOVED:
            return []
        kind = str(next(iter(after.values())).dtype).removeprefix("torch.")
        return [
            f"{share:.0%} of the weights are what they were before training: they are kept in {kind}, in which steps "
            f"of --learning_rate {args.learning_rate:g} are rounded away. People load the model with --dtype float32 "
            "and compute with --bf16, or train adapters with --use_peft."
        ]


def _short(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Trained parameters of 16 bits, but for embeddings: those of tokens that never occur have no reason to move."""
    embeddings = {id(one.weight) for one in model.modules() if isinstance(one, torch.nn.Embedding)}
    for name, one in model.named_parameters():
        if one.requires_grad and one.dtype in _SHORT and id(one) not in embeddings:
            yield name, one


def _some(parameter: torch.nn.Parameter) -> Any:
    flat = parameter.detach().flatten()
    return flat[:: max(1, flat.numel() // WEIGHTS)].clone()
