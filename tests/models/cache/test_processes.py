"""The reference cache: processes that write at once, and those that are killed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.models.cache.completions import ONE, files, fill, fork, held, in_processes, opened
from xpo.models import cache, shelf, store


def test_processes_that_write_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "TOKENS", 200)
    monkeypatch.setattr(shelf, "MANY", 5)
    barrier = fork.Barrier(4)

    def work(rank: int) -> None:
        barrier.wait(30)
        fill(root, range(50 * rank, 50 * rank + 150))

    in_processes(work, 4)
    assert held(root, range(400)) == set(range(300))
    assert {path.suffix for path in root.rglob("*.*")} == {".safetensors", ".json"}


@pytest.mark.parametrize("attempt", range(5))
def test_a_process_killed_while_writing(root: Path, monkeypatch: pytest.MonkeyPatch, attempt: int) -> None:
    monkeypatch.setattr(shelf, "MANY", 8)

    def work() -> None:
        monkeypatch.setattr(cache, "TOKENS", 1)
        fill(root, range(10**9))

    process = fork.Process(target=work)
    process.start()
    deadline = time.monotonic() + 30
    while len(files(root)) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(random.Random(attempt).uniform(0, 0.1))
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    reader = opened(root)
    assert reader.problems == []
    there = held(root, range(3000))
    assert len(there) >= 3
    # Written in order, so that only the end can be missing; empty completions are written with the next one.
    assert there == set(range(len(there)))
    fill(root, range(3010))
    assert held(root, range(3010)) == set(range(3010))


def test_what_a_killed_process_left_goes_after_a_day(root: Path) -> None:
    fill(root, range(3))
    folder = store.place(root, ONE)
    names = {"old.partial": 90000, "new.partial": 3600, "old.damaged": 90000, "old.txt": 90000}
    for name, age in names.items():
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    assert held(root, range(4)) == {0, 1, 2}
    assert {path.name for path in folder.iterdir() if path.name in names} == {"new.partial", "old.txt"}
