"""Where the processes of cells run: the interface, and this machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

#: Variable that tells a worker who started it; a worker whose starter is gone ends itself.
PARENT = "XPO_BENCH_PARENT"
#: Seconds between two looks at the processes, and that one may take to end when it is asked to.
_LOOK, _GRACE = 0.05, 5.0


@dataclass(frozen=True)
class Job:
    """A process to run.

    Attributes:
        key: what the caller knows it by.
        argv: its command line.
        folder: where it works; relative paths in settings count from here.
        log: file for all it prints.
        environment: variables beside those of this process.
    """

    key: str
    argv: Sequence[str]
    folder: Path
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit status, or minus the signal that ended it, and the seconds it took."""

    key: str
    status: int
    seconds: float


class Executor(Protocol):
    """Runs so many processes at a time. All of them see the same files under the same names."""

    slots: int

    def start(self, job: Job) -> None:
        """Start a process; the caller sees to it that there is a free slot."""

    def ended(self, timeout: float) -> list[Ended]:
        """Processes that ended since the last call, once there is one or the seconds are over."""

    def stop(self) -> None:
        """End all processes that still run; none is left when it returns."""


def launch(job: Job, keep: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start the process of a job, in a session of its own: Ctrl-C on the terminal is the starter's to handle.

    Args:
        keep: file descriptors it inherits.
    """
    environment = {**os.environ, **job.environment, PARENT: str(os.getpid())}
    with job.log.open("ab") as log:
        return subprocess.Popen(
            list(job.argv),
            cwd=job.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=tuple(keep),
        )


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    started: float
    slot: int


class LocalExecutor:
    """Processes on this machine.

    Args:
        slots: at a time.
        devices: GPUs to deal out, by number; one for each slot in turn. None leaves it to the processes.
        keep: file descriptors every process inherits, such as a lock that is to last as long as they do.
    """

    def __init__(self, slots: int = 1, devices: Sequence[str] = (), keep: Sequence[int] = ()) -> None:
        self.slots = slots
        self.devices = devices
        self.keep = keep
        self._running: list[_Running] = []

    def start(self, job: Job) -> None:
        slot = min(set(range(self.slots)) - {one.slot for one in self._running})
        more = {"CUDA_VISIBLE_DEVICES": self.devices[slot % len(self.devices)]} if self.devices else {}
        job = Job(job.key, job.argv, job.folder, job.log, {**more, **job.environment})
        self._running.append(_Running(job, launch(job, self.keep), time.monotonic(), slot))

    def ended(self, timeout: float) -> list[Ended]:
        until = time.monotonic() + timeout
        while True:
            gone = [one for one in self._running if one.process.poll() is not None]
            if gone or time.monotonic() >= until:
                self._running = [one for one in self._running if one not in gone]
                now = time.monotonic()
                return [Ended(one.job.key, one.process.returncode, now - one.started) for one in gone]
            time.sleep(_LOOK)

    def stop(self) -> None:
        for one in self._running:
            one.process.terminate()
        until = time.monotonic() + _GRACE
        for one in self._running:
            try:
                one.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
        self._running = []
