"""Suites whose cells are stand-ins that write made-up results at once, or real ones that run in this process."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.bench.madeup import result
from xpo.bench import worker
from xpo.bench.executor import Ended, Job
from xpo.bench.reading import read
from xpo.bench.run import run
from xpo.bench.summary import Summary
from xpo.plugins import load
from xpo.train.sources import from_argv


@dataclass
class Here:
    """An executor that runs one job at a time in this process.

    Attributes:
        work: does a job; the worker's own work if not given.
        ran: keys of the jobs.
        end: raise KeyboardInterrupt instead of the job of this number.
    """

    work: Callable[[Mapping[str, Any], Path], dict[str, Any]] = worker.work
    ran: list[str] = field(default_factory=list)
    end: int | None = None
    slots: int = 1
    stopped: int = 0
    status: int = 0

    def start(self, job: Job) -> None:
        if self.end == len(self.ran):
            raise KeyboardInterrupt
        self.ran.append(job.key)
        path = Path(job.argv[-1])
        self.status = 0
        with job.log.open("a") as log, redirect_stdout(log), redirect_stderr(log):
            try:
                found = self.work(json.loads(path.read_text()), path.parent)
                (path.parent / "result.json").write_text(json.dumps(found))
            except Exception:
                traceback.print_exc()
                self.status = 1

    def ended(self, timeout: float) -> list[Ended]:
        return [Ended(self.ran[-1], self.status, 1.0)]

    def stop(self) -> None:
        self.stopped += 1


def made_up(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The work of a stand-in."""
    return result(job)


def suite(line: str, where: Any = None) -> Summary:
    """Run a command line of ``xpo bench`` with stand-ins."""
    return run(read(from_argv(line.split())), load(), Here(made_up) if where is None else where)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and pairs, in a folder."""
    folder = tmp_path_factory.mktemp("bench")
    tiny.saved(folder / "model")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tiny.rows("pairs", 30)))
    (folder / "mine.py").write_text(
        "def short(completion_ids, **_):\n    return [-float(len(ids)) for ids in completion_ids]\n"
    )
    return folder
