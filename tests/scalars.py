"""Tiny reward models on disk, adapters and whole ones, that say something definite; and policies to set them beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests import tiny
from xpo.models.load import Policy, load_policy
from xpo.models.zero import Zero
from xpo.train.settings import ModelSettings

ZERO = Zero.of([0.25, 0.75])


def reward_model(folder: Path, base: Path, *, lora: bool, zero: Zero | None = ZERO, **settings: Any) -> Path:
    """What ``xpo train --algo bradley_terry`` leaves behind, trained far."""
    wanted = config(base, use_peft=lora, lora_dropout=0.4, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = load_policy(wanted, scalar=True).model
    stir(model, seed=11)
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    if zero is not None:
        zero.save(folder)
    return folder


def policy(name: Path, **settings: Any) -> Policy:
    """A policy as a run loads it; with adapters, unless told otherwise."""
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return load_policy(config(name, **settings))


def config(name: Path, **settings: Any) -> ModelSettings:
    return ModelSettings(**{"model_name_or_path": str(name), "use_peft": True, "lora_r": 4, **settings})


def stir(model: torch.nn.Module, seed: int) -> None:
    """Change all that is trained, as training would, only further."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for one in model.parameters():
            if one.requires_grad:
                one.add_(0.1 * torch.randn(one.shape, generator=draw))


def held(*models: torch.nn.Module | None) -> dict[int, int]:
    """Address -> bytes of every storage that some models hold, scales of quantised weights and buffers included."""
    found = {}
    for model in models:
        if model is None:
            continue
        scales = [getattr(getattr(module, "quant_state", None), "absmax", None) for module in model.modules()]
        for tensor in (*model.parameters(), *model.buffers(), *(one for one in scales if one is not None)):
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return found
