"""A batch that does not fit is split, and the update stays the same; what does not fit at all is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from xpo.api.batch import Batch
from xpo.errors import SettingError
from xpo.train import trainer as loop
from xpo.train.fitting import fit_batch, heaviest

#: What torch says when memory is short.
MESSAGES = {
    "a GPU": "CUDA out of memory. Tried to allocate 20.00 MiB.",
    "a CPU": "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to allocate",
}


def made(folder: Path, name: str = "simpo", **arguments: Any) -> loop.PreferenceTrainer:
    return tiny.trainer(name, folder, **{"per_device_train_batch_size": 8, **arguments})


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``room(3)``: scoring more than three groups runs out of memory."""

    def limit(groups: int, message: str = MESSAGES["a GPU"], checkpointed: int = 0) -> None:
        real = loop.score

        def score(model: torch.nn.Module, batch: Batch, *rest: Any, **more: Any) -> Any:
            most = max(groups, checkpointed if getattr(model, "is_activation_checkpointing", False) else 0)
            if len(batch.groups) > most:
                raise RuntimeError(message)
            return real(model, batch, *rest, **more)

        monkeypatch.setattr(loop, "score", score)

    return limit


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_smaller_batch_makes_the_same_update(tmp_path: Path, room: Any, message: str) -> None:
    whole = made(tmp_path / "whole")
    whole.train()
    room(3, message)
    split = made(tmp_path / "split")
    (line,) = fit_batch(split, may_checkpoint=False)
    assert "--per_device_train_batch_size 2 with --gradient_accumulation_steps 4 instead of 8 with 1" in line
    split.train()
    assert split.state.global_step == whole.state.global_step
    theirs = dict(whole.model.named_parameters())
    start = tiny.model().state_dict()
    for name, weight in split.model.named_parameters():
        assert torch.allclose(weight, theirs[name], atol=1e-5)
        assert not torch.equal(weight, start[name])


def test_what_fits_is_left_alone_and_leaves_no_trace(tmp_path: Path) -> None:
    trainer = made(tmp_path)
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    assert fit_batch(trainer, may_checkpoint=True) == []
    assert torch.equal(torch.random.get_rng_state(), state)
    assert trainer.args.per_device_train_batch_size == 8
    assert all(one.grad is None for one in trainer.model.parameters())
    assert trainer._meter.read(1) == {}


def test_the_rehearsal_takes_the_heaviest_batch(tmp_path: Path) -> None:
    trainer = made(tmp_path)
    step = heaviest(trainer, 2)
    groups = trainer.train_dataset.groups

    def tokens(micro: Any) -> int:
        rows = [groups[micro.rows[position]] for position in micro.part]
        return sum(len(row.prompt_ids) + sum(len(one.ids) for one in row.completions) for row in rows)

    sampler = trainer.steps.sampler(trainer.train_dataset, 2, train=True)
    assert tokens(step) == max(tokens(micro) for (micro,) in sampler)


def test_activations_are_given_up_before_the_run_is(tmp_path: Path, room: Any) -> None:
    room(0, checkpointed=4)
    trainer = made(tmp_path)
    lines = fit_batch(trainer, may_checkpoint=True)
    assert len(lines) == 2
    assert "--activation_checkpointing" in lines[0]
    assert "--per_device_train_batch_size 4" in lines[1]
    trainer.train()


def test_nothing_fits(tmp_path: Path, room: Any) -> None:
    room(0)
    with pytest.raises(SettingError, match="a batch of 1 does not fit"):
        fit_batch(made(tmp_path), may_checkpoint=False)


def test_a_batch_never_falls_below_what_the_method_needs(tmp_path: Path, room: Any) -> None:
    room(2)
    trainer = made(tmp_path / "fits", "kto")
    fit_batch(trainer, may_checkpoint=False)
    assert trainer.args.per_device_train_batch_size == 2
    room(1)
    with pytest.raises(SettingError, match="a batch of 2 does not fit"):
        fit_batch(made(tmp_path / "not", "kto"), may_checkpoint=False)


def test_other_errors_are_not_taken_for_it(tmp_path: Path, room: Any) -> None:
    room(0, "shapes do not match")
    with pytest.raises(RuntimeError, match="shapes do not match"):
        fit_batch(made(tmp_path), may_checkpoint=False)
