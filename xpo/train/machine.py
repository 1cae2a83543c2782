"""What a run ran on: versions, git state, device and peak memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("xpo", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "pluggy")


def is_main() -> bool:
    """Whether this process is the one that writes and speaks: rank 0, or the only one.

    Read from the environment that launchers set, so it is known before any process group exists.
    """
    return int(os.environ.get("RANK", "0")) == 0


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes; absent ones are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_state(directory: str | os.PathLike[str] = ".") -> dict[str, Any] | None:
    """``{"commit", "dirty"}`` of the working tree around ``directory``; None outside one, or without git.

    Untracked files do not make a tree dirty: the outputs of earlier runs would.
    """
    commit = _git(directory, "rev-parse", "HEAD")
    status = _git(directory, "status", "--porcelain", "--untracked-files=no")
    if commit is None or status is None:
        return None
    return {"commit": commit, "dirty": bool(status)}


def _git(directory: str | os.PathLike[str], *arguments: str) -> str | None:
    # Without optional locks a look at the status never writes to the user's index.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", os.fspath(directory), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False, env=environment)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def device(kind: str | None = None) -> dict[str, Any]:
    """``{"kind", "name", "count", "cpu", "cores"}`` of what the model runs on.

    Args:
        kind: type of the model's device, such as ``model.device.type``; by default the best one present.
    """
    import torch

    if kind is None:
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    cpu = _cpu_name()
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows
        cores = os.cpu_count() or 1
    name, count = cpu, 1
    if kind == "cuda":
        name, count = torch.cuda.get_device_name(), int(os.environ.get("WORLD_SIZE", "1"))
    return {"kind": kind, "name": name, "count": count, "cpu": cpu, "cores": cores}


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


class PeakMemory:
    """Most memory this process has held: on the GPU since the object was made, on the host since it started."""

    def __init__(self) -> None:
        import torch

        self.gpu = torch.cuda.is_available()
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()

    def host_bytes(self) -> int | None:
        """Peak resident size in bytes; None where the system does not tell."""
        try:
            # A process started by a large one inherits its parent's ru_maxrss; VmHWM is its own.
            for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        except OSError:
            pass
        try:
            import resource
        except ImportError:  # Windows
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def gpu_bytes(self) -> int | None:
        """Peak memory allocated for tensors on this process's GPU in bytes; None without one."""
        if not self.gpu:
            return None
        import torch

        return int(torch.cuda.max_memory_allocated())
