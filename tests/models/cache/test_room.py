"""The reference cache: what goes first where room is short, and a disk that is full."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
import torch

from tests.models.cache.completions import ONE, TWO, files, fill, held, number, opened, value
from xpo.models import shards, shelf, store
from xpo.models.cache import LogpCache, clear, contents, identify


def test_the_least_recently_used_goes_first(root: Path) -> None:
    ages = {identify(str(days)): days for days in (3, 2, 1)}
    for identity, days in ages.items():
        fill(root, range(50), identity)
        for path in files(store.place(root, identity)):
            os.utime(path, (time.time() - 86400 * days,) * 2)
    three, two, one = ages
    size = files(store.place(root, one))[0].stat().st_size
    assert held(root, range(50), three) == set(range(50))  # used again
    fill(root, range(50), TWO, limit=3 * size + 100)
    left = {identity for identity in (three, two, one, TWO) if held(root, [1], identity)}
    assert left == {three, one, TWO}
    fill(root, range(50, 100), TWO, limit=size)
    assert [path.parent for path in files(root)] == [store.place(root, TWO)]
    assert held(root, range(100), TWO) == set(range(50, 100))
    fill(root, range(100, 110), TWO, limit=10)
    assert files(root) == []


def test_a_run_keeps_what_was_removed_under_it(root: Path) -> None:
    kept = opened(root)
    kept.put(number(1), value(1))
    kept.flush()
    assert clear(root) > 0
    assert not list((root / "reference").iterdir())
    assert kept.get(number(1)) is not None
    kept.put(number(2), value(2))
    kept.close()
    assert kept.problems == []
    assert held(root, range(3)) == {2}


def carries_on(kept: LogpCache) -> None:
    """A cache that cannot write: it works from memory, and says so once."""
    for index in range(1, 4):
        kept.put(number(index), value(index))
        kept.flush()
        found = kept.get(number(index))
        assert found is not None
        assert torch.equal(found, value(index))
    assert kept.get(number(1)) is not None
    kept.close()
    assert kept.written == 0
    assert len(kept.problems) == 1
    assert "in memory" in kept.problems[0]


@pytest.mark.parametrize("depth", ["the root", "the folder"])
def test_a_folder_that_cannot_be_made(root: Path, depth: str) -> None:
    place = root if depth == "the root" else store.place(root, ONE)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("not a folder")
    carries_on(opened(root))
    assert place.read_text() == "not a folder"
    assert depth == "the folder" or contents(root) == []


def test_a_disk_that_fills_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(root, [0])

    def fsync(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    kept = opened(root)
    carries_on(kept)
    assert "No space left" in kept.problems[0]
    assert len(files(root)) == 1
    assert files(root, ".partial") == []


def test_the_rest_of_the_disk_is_left_to_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "RESERVE", 10**18)
    carries_on(opened(root))
    assert files(root) == []


def test_a_disk_too_full_to_join_files(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(6):
        fill(root, [index])
    monkeypatch.setattr(shelf, "MANY", 3)
    monkeypatch.setattr(shards, "RESERVE", 10**18)
    assert held(root, range(6)) == set(range(6))
    assert len(files(root)) == 6
