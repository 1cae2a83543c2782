"""``--torch_compile`` wraps the model in a class of its own, which has none of a model's class attributes."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests import tiny
from xpo import Batch
from xpo.compat import checkpoints, uncompiled
from xpo.models.scoring import innermost, score


@pytest.mark.parametrize("adapters", [False, True])
def test_the_model_inside_is_found(adapters: bool) -> None:
    model = tiny.model()
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    compiled = torch.compile(get_peft_model(model, config) if adapters else model, backend="eager")
    assert innermost(compiled) is model
    assert innermost(torch.nn.DataParallel(compiled)) is model
    assert checkpoints(innermost(compiled)) is False
    assert uncompiled(model) is model


def test_it_says_the_same() -> None:
    model, batch = tiny.model().eval(), Batch.of(tiny.groups("pairs", 3))
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(score(compiled, batch).logps, score(model, batch).logps)
