"""The processes of a run find each other, or none of them trains: each by itself would write over the others' files."""

from __future__ import annotations

import os

import torch

from xpo.errors import SettingError
from xpo.train.ranks import announced
from xpo.train.settings import TrainingArguments


def meet_on_cpu() -> None:
    """Let several processes meet on a machine without an accelerator. Call it before training arguments are made.

    ``accelerate`` looks for the others only on accelerators, unless it was told that the CPU is meant.
    """
    if announced() > 1 and not torch.accelerator.is_available():
        os.environ["ACCELERATE_USE_CPU"] = "true"


def check_processes(args: TrainingArguments) -> None:
    """Refuse to train beside processes that should have trained along, and to shard a model over one.

    Raises:
        SettingError: a launcher has started more processes than have found each other; ``--fsdp`` has one only.
    """
    if args.fsdp and announced() == 1:
        raise SettingError(
            "--fsdp shards a model over several processes, and this is one; start them with torchrun "
            "--nproc_per_node N -m xpo train ..., or drop --fsdp"
        )
    if args.world_size != announced():
        raise SettingError(
            f"WORLD_SIZE says that this is one of {announced()} processes, but {args.world_size} would train together "
            "and each of the others the same by itself; start them with torchrun or accelerate launch, which also "
            "tell every process its LOCAL_RANK, or unset WORLD_SIZE"
        )
