"""Start the processes that ``accelerate launch --cpu --num_processes N`` announces but leaves to MPI."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from xpo.errors import SettingError

#: What launchers tell the processes they start. Without any of them a process is alone.
_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")


def ensure_processes(argv: Sequence[str]) -> None:
    """Replace this process by a launcher of all of them, if ``accelerate`` was told of several and started one.

    On a CPU, without MPI, it sets the address of the first process and starts a single one, which would quietly train
    with a part of the batch.
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
    address, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    place = ["--nproc_per_node", str(count), "--master_addr", address, "--master_port", port]
    launcher = [sys.executable, "-m", "torch.distributed.run", *place, "-m", "xpo", "train"]
    os.execv(sys.executable, [*launcher, *argv])


def _alone(environment: Mapping[str, str]) -> bool:
    on_cpu = environment.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
    return on_cpu and "MASTER_ADDR" in environment and not any(name in environment for name in _RANKS)


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
