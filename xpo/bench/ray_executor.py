"""Processes on the machines of a Ray cluster, which all see the output directory, the model and the data."""

from __future__ import annotations

import importlib
import time
from typing import Any

from xpo.bench.executor import Ended, Job, launch
from xpo.errors import SettingError


def run_job(job: Job) -> int:
    """What a Ray worker does: run the process and wait for it; its status. The process ends with the worker."""
    process = launch(job)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            process.kill()


class RayExecutor:
    """The same interface as on one machine; Ray decides where a process runs.

    Args:
        slots: processes at a time.
        address: of the cluster; None for one on this machine.
        gpus: GPUs a process is given.
        ray: the library, for tests.

    Raises:
        SettingError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, slots: int, address: str | None, gpus: int, ray: Any = None) -> None:
        self.slots = slots
        self._ray = _library() if ray is None else ray
        try:
            self._ray.init(address=address, ignore_reinit_error=True, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise SettingError(f"--address {address}: there is no Ray cluster to use: {error}") from None
        self._task = self._ray.remote(run_job).options(num_gpus=gpus, max_retries=0)
        self._running: dict[Any, tuple[Job, float]] = {}

    def start(self, job: Job) -> None:
        self._running[self._task.remote(job)] = (job, time.monotonic())

    def ended(self, timeout: float) -> list[Ended]:
        if not self._running:
            return []
        gone, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout)
        found = []
        for one in gone:
            job, started = self._running.pop(one)
            try:
                status = int(self._ray.get(one))
            except Exception as error:  # the machine or Ray's worker is gone; whatever it was, the cell has failed
                with job.log.open("a", encoding="utf-8") as log:
                    log.write(f"\nxpo: Ray lost the process: {' '.join(str(error).split())}\n")
                status = 1
            found.append(Ended(job.key, status, time.monotonic() - started))
        return found

    def stop(self) -> None:
        for one in self._running:
            self._ray.cancel(one, force=True)
        self._running = {}
        self._ray.shutdown()


def _library() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise SettingError("--executor ray needs Ray, which is not installed: pip install ray") from None
