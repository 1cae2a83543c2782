"""Processes that a launcher started together train together, or none of them does."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from xpo.errors import SettingError
from xpo.train.processes import check_processes, meet_on_cpu


@pytest.mark.parametrize(
    ("announced", "accelerator", "cpu"), [("2", False, "true"), ("2", True, "False"), ("1", False, "False")]
)
def test_several_processes_without_an_accelerator_mean_the_cpu(
    monkeypatch: pytest.MonkeyPatch, announced: str, accelerator: bool, cpu: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", announced)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")  # as accelerate launch says it without --cpu
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    meet_on_cpu()
    assert os.environ["ACCELERATE_USE_CPU"] == cpu


def arguments(world: int, fsdp: bool = False) -> Any:
    return SimpleNamespace(world_size=world, fsdp=fsdp)


def test_processes_that_did_not_find_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_processes(arguments(2))
    with pytest.raises(SettingError, match="one of 2 processes, but 1 would train together"):
        check_processes(arguments(1))
    monkeypatch.delenv("WORLD_SIZE")
    check_processes(arguments(1))


def test_one_process_has_nothing_to_shard_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(SettingError, match="--fsdp shards a model over several processes"):
        check_processes(arguments(1, fsdp=True))
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_processes(arguments(2, fsdp=True))
