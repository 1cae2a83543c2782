"""Room: the memory that a run can have on this machine, and what a process holds before it has a model."""

from __future__ import annotations

from pathlib import Path

import psutil  # type: ignore[import-untyped]  # accelerate requires it
import torch

#: Share of the room that a plan leaves free: what it expects is not what comes to the byte.
SPARE = 0.1

_GROUPS = Path("/sys/fs/cgroup")


def resident() -> int:
    """Bytes of memory this process holds now: the interpreter, the libraries, and the data."""
    return int(psutil.Process().memory_info().rss)


def room(device: str) -> int:
    """Bytes that a run may take on a device: what is free, and on a CPU what this process holds itself."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    free = int(psutil.virtual_memory().available)
    limit = _limit()
    return (free if limit is None else min(free, limit)) + resident()


def _limit() -> int | None:
    """Bytes left to the container this process is in; None where there is no limit."""
    try:
        most = (_GROUPS / "memory.max").read_text(encoding="utf-8").strip()
        if most == "max":
            return None
        held = int((_GROUPS / "memory.current").read_text(encoding="utf-8"))
        stat = dict(line.split() for line in (_GROUPS / "memory.stat").read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError):  # not Linux, or its older groups
        return None
    return max(int(most) - held + int(stat.get("inactive_file", 0)), 0)  # cached files give way
