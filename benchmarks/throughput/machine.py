"""What the machine can do and what a process has held: measured in the very process that trained."""

from __future__ import annotations

import time
from pathlib import Path

import torch

#: Side of the square matrices, large enough for either kind of device to reach its rate.
_SIDE = {"cpu": 2048, "cuda": 8192}


def matrix_rate(device: str, dtype: str, seconds: float = 1.5) -> float:
    """Floating-point operations a second of the best of many large matrix products."""
    kind = torch.device(device).type
    side = _SIDE.get(kind, 2048)
    a, b = (torch.randn(side, side, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    best, until = float("inf"), time.perf_counter() + seconds
    # The first product sets libraries up, so there are always a few.
    taken = 0
    while taken < 3 or time.perf_counter() < until:
        wait(kind)
        started = time.perf_counter()
        torch.mm(a, b)
        wait(kind)
        best = min(best, time.perf_counter() - started)
        taken += 1
    return 2 * side**3 / best


def wait(kind: str) -> None:
    """Let the device finish what it was given, so that a stamp says when that was."""
    if kind == "cuda":
        torch.cuda.synchronize()


def host_peak() -> int | None:
    """Most bytes this process has held in memory since it began; None where the system does not tell."""
    try:
        # Unlike ru_maxrss this is not inherited from the process that started this one.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def device_peak(kind: str) -> int | None:
    """Most bytes of tensors on the GPU; None without one."""
    return int(torch.cuda.max_memory_allocated()) if kind == "cuda" else None
