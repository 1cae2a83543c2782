"""Start the processes that ``accelerate launch --num_processes N`` announces on a CPU but leaves to MPI."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from xpo.errors import SettingError

#: What launchers tell the processes they start. Without any of them a process is alone.
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def ensure_processes(argv: Sequence[str]) -> None:
    """Replace this process by a launcher of all of them, if ``accelerate`` was told of several and started one.

    Without ``--multi_gpu`` and without MPI it sets the address of the first process and starts a single one, which
    would quietly train with a part of the batch.

    Raises:
        SettingError: it does not say how many, or they were to use accelerators, which it starts only when told so.
    """
    if not _alone(os.environ):
        return
    count = _announced(_parent())
    if count is None:
        raise SettingError(
            "accelerate launch announced several processes and started one; start them with "
            f"torchrun --nproc_per_node N -m xpo train {' '.join(argv)}"
        )
    if count < 2:
        return
    if not _on_cpu(os.environ):
        raise SettingError(
            f"accelerate launch announced {count} processes and started one; give it --multi_gpu, or --cpu to train "
            "without accelerators"
        )
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    place = ["--nproc_per_node", str(count), "--master_addr", address, "--master_port", port]
    launcher = [sys.executable, "-m", "torch.distributed.run", *place, "-m", "xpo", "train"]
    os.execv(sys.executable, [*launcher, *argv])


def _alone(environment: Mapping[str, str]) -> bool:
    launched = "ACCELERATE_USE_CPU" in environment and "MASTER_ADDR" in environment
    return launched and not any(name in environment for name in _RANKS)


def _on_cpu(environment: Mapping[str, str]) -> bool:
    """Whether the processes are to run on the CPU: it was asked for, or there is nothing else."""
    if environment["ACCELERATE_USE_CPU"].lower() in ("1", "true"):
        return True
    import torch

    return not torch.accelerator.is_available()


def _parent() -> list[str]:
    """The command line of the process that started this one."""
    import psutil  # type: ignore[import-untyped]  # accelerate requires it

    parent = psutil.Process().parent()
    return [] if parent is None else parent.cmdline()


def _announced(command: Sequence[str]) -> int | None:
    """The number of processes in a command line of ``accelerate launch``; None when it is not there."""
    for index, word in enumerate(command):
        name, equals, value = word.replace("_", "-").partition("=")
        if name == "--num-processes":
            number = value if equals else command[index + 1] if index + 1 < len(command) else ""
            return int(number) if number.isdecimal() else None
    return None
