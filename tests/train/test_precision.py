"""Weights of 16 bits: what is said of them before training, and of those that did not move after it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from xpo.errors import SettingError
from xpo.train.precision import Grain, check_precision


def arguments(fp16: bool = False) -> Any:
    return SimpleNamespace(fp16=fp16, learning_rate=1e-6)


def model(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 100)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_only_float16_is_warned_of_and_not_where_it_is_frozen(dtype: torch.dtype) -> None:
    one = model(dtype)
    lines = check_precision(one, arguments())
    assert bool(lines) == (dtype == torch.float16)
    assert all("--dtype float32" in line and "--fp16" in line for line in lines)
    assert check_precision(one.requires_grad_(False), arguments(fp16=True)) == []


def test_a_scaled_loss_needs_weights_of_32_bits() -> None:
    check_precision(model(torch.float32), arguments(fp16=True))
    with pytest.raises(SettingError, match="--dtype float32"):
        check_precision(model(torch.float16), arguments(fp16=True))


@pytest.mark.parametrize(
    ("dtype", "step", "noted"),
    [(torch.bfloat16, 1e-6, True), (torch.bfloat16, 1e-2, False), (torch.float32, 1e-6, False)],
)
def test_weights_that_a_step_does_not_reach_are_counted(dtype: torch.dtype, step: float, noted: bool) -> None:
    one = model(dtype)
    grain, before = Grain(one), [parameter.detach().clone() for parameter in one[1].parameters()]
    with torch.no_grad():
        for parameter in one[1].parameters():  # the embedding stays: its tokens do not occur
            parameter.add_(step)
    notes = grain.notes(one, arguments())
    same = [int((a == b).sum()) for a, b in zip(one[1].parameters(), before, strict=True)]
    assert bool(notes) is noted
    if noted:
        assert notes[0].startswith(f"{sum(same) / 900:.0%} of the weights are what they were before training")
        assert "bfloat16" in notes[0]
