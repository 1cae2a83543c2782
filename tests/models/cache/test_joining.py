"""The reference cache: many small files become one, whoever else is at work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.cache.completions import files, fill, fork, held, in_processes, number, opened
from xpo.models import cache, shards, shelf
from xpo.models.cache import LogpCache, contents


def test_many_small_files_become_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(10):
        fill(root, range(5 * index, 5 * index + 8))  # they overlap
    early = opened(root)
    monkeypatch.setattr(shelf, "MANY", 9)
    late = opened(root)
    assert len(files(root)) == 1
    assert contents(root)[0].completions == 53
    for reader in (early, late):
        assert all(reader.get(number(index)) is not None for index in range(53))
        assert reader.problems == []
    fill(root, [60])
    monkeypatch.setattr(shelf, "SMALL", files(root)[1].stat().st_size)
    monkeypatch.setattr(shelf, "MANY", 1)
    assert held(root, range(61)) == {*range(53), 60}
    assert len(files(root)) == 2  # the joined file is not small any more


def test_joining_stops_at_a_size(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        fill(root, [index])
    sizes = sorted(path.stat().st_size for path in files(root))
    monkeypatch.setattr(shelf, "MANY", 3)
    monkeypatch.setattr(shelf, "JOINED", sum(sizes[:3]) + 1)
    assert held(root, range(6)) == set(range(6))
    assert len(files(root)) == 4


def test_processes_that_join_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(40):
        fill(root, range(3 * index, 3 * index + 3))
    early = opened(root)
    monkeypatch.setattr(shelf, "MANY", 4)
    barrier = fork.Barrier(3)

    def work(rank: int) -> None:
        barrier.wait(30)
        for index in range(10):
            fill(root, [1000 + 10 * rank + index])

    in_processes(work, 3)
    assert len(files(root)) < 10
    assert held(root, range(2000)) == {*range(120), *range(1000, 1030)}
    assert all(early.get(number(index)) is not None for index in range(120))
    assert early.problems == []


def test_a_join_in_the_middle_of_another(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        fill(root, [index])
    monkeypatch.setattr(shelf, "MANY", 3)
    real, readers = shards.write, list[LogpCache]()

    def write(*args: Any) -> Path:
        monkeypatch.setattr(shelf, "write", real)
        readers.append(opened(root))  # it has joined all files when the one that called comes to write
        assert len(files(root)) == 1
        return real(*args)

    monkeypatch.setattr(shelf, "write", write)
    readers.append(opened(root))
    assert len(readers) == 2
    assert len(files(root)) == 1
    assert all(reader.get(number(index)) is not None for reader in readers for index in range(6))


def test_a_join_between_listing_files_and_opening_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        fill(root, [index])
    real = shelf.Shelf._open

    def late(self: shelf.Shelf, path: Path) -> shards.Shard | None:
        monkeypatch.setattr(shelf.Shelf, "_open", real)
        monkeypatch.setattr(shelf, "MANY", 3)
        opened(root).close()
        return real(self, path)

    monkeypatch.setattr(shelf.Shelf, "_open", late)
    reader = opened(root)
    assert len(files(root)) == 1
    assert all(reader.get(number(index)) is not None for index in range(6))
    assert reader.problems == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs the list of open files of Linux")
def test_files_held_open_do_not_pile_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when others always join them before this process sees that there are many."""
    monkeypatch.setattr(cache, "TOKENS", 1)
    monkeypatch.setattr(shelf, "MANY", 5)
    kept = opened(root)
    before = len(os.listdir("/proc/self/fd"))
    for index in range(1, 61):
        kept.put(number(index), torch.zeros(3))
        if index % 4 == 0:
            with monkeypatch.context() as patch:
                patch.setattr(shelf, "MANY", 2)
                opened(root).close()
    assert len(os.listdir("/proc/self/fd")) < before + 15
    assert all(kept.get(number(index)) is not None for index in range(1, 61))
    monkeypatch.setattr(shelf, "MOST", 1)
    kept.put(number(100), torch.zeros(3))
    kept.refresh()
    assert kept.get(number(100)) is not None
    assert len(os.listdir("/proc/self/fd")) == before + 1
    kept.close()
