"""The reference cache on the disk: numbers come back as they were put, or not at all, whatever happens to the files."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import save

from xpo import SettingError
from xpo.models import cache, shards, shelf, store
from xpo.models.cache import LogpCache, cache_limit, cache_root, clear, contents, identify, key

ONE, TWO = identify("one"), identify("two")
# Forked, so that what a test has changed holds in the process too.
fork = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def _small_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "RESERVE", 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def opened(root: Path | None, identity: str = ONE, limit: int = 10**9, **describe: str) -> LogpCache:
    return LogpCache(identity, folder=root, limit_bytes=limit, describe=describe)


def number(index: int) -> bytes:
    return key([index], [1, 2, 3])


def value(index: int) -> torch.Tensor:
    """Log-probabilities of some completion: their number and values differ from one to the next."""
    rng = random.Random(index)
    return torch.tensor([-rng.expovariate(0.1) for _ in range(rng.randint(0, 30))])


def fill(root: Path, which: Iterable[int], identity: str = ONE, **settings: Any) -> None:
    """Write completions, one file for all of them."""
    filled = opened(root, identity, **settings)
    for index in which:
        filled.put(number(index), value(index))
    filled.close()
    assert not filled.problems


def held(root: Path, which: Iterable[int], identity: str = ONE) -> set[int]:
    """The completions that are there; those that are have the right numbers."""
    reader = opened(root, identity)
    found = {index: reader.get(number(index)) for index in which}
    there = {index: logps for index, logps in found.items() if logps is not None}
    assert all(torch.equal(logps, value(index)) for index, logps in there.items())
    reader.close()
    return set(there)


def files(root: Path, ending: str = shards.SHARD) -> list[Path]:
    return sorted(root.rglob(f"*{ending}"))


def in_processes(work: Callable[[int], None], count: int) -> None:
    processes = [fork.Process(target=work, args=(index,)) for index in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def test_what_is_put_is_got(root: Path) -> None:
    first = opened(root)
    assert first.get(number(1)) is None
    logps = torch.tensor([-1.5, -0.0, float("-inf"), -1e-42])
    first.put(number(1), logps)
    first.put(number(2), torch.tensor([], requires_grad=True))
    first.put(number(3), torch.tensor([-0.1, -2.7], dtype=torch.bfloat16))
    expected = {1: logps, 2: torch.empty(0), 3: torch.tensor([-0.1, -2.7], dtype=torch.bfloat16).float()}

    def check(found: LogpCache) -> None:
        for index, wanted in expected.items():
            got = found.get(number(index))
            assert got is not None
            assert got.dtype == torch.float32
            assert not got.requires_grad
            assert got.numpy().tobytes() == wanted.numpy().tobytes()
            got.add_(1.0)  # what a caller does with it is its own

    check(first)
    check(first)
    first.flush()
    check(first)
    assert (first.hits, first.misses, first.written, first.problems) == (9, 1, 3, [])
    first.close()
    second = opened(root)
    check(second)
    assert (second.hits, second.misses, second.written) == (3, 0, 0)
    second.put(number(1), value(1))  # known already
    second.close()
    assert len(files(root)) == 1
    assert held(root, [1], TWO) == set()


def test_a_key_says_where_the_prompt_ends() -> None:
    splits = [([], [1, 2, 3]), ([1], [2, 3]), ([1, 2], [3]), ([1, 2, 3], []), ([3], [1, 2]), ([1, 2], [2**40])]
    keys = {key(prompt, completion) for prompt, completion in splits}
    assert len(keys) == len(splits)
    assert {len(made) for made in keys} == {16}
    assert key((1,), [2, 3]) == key([1], (2, 3))


def test_an_identity_keeps_its_parts_apart() -> None:
    assert len({identify("ab", "c"), identify("a", "bc"), identify("abc"), identify("ab", "c", "")}) == 4
    with pytest.raises(ValueError, match="identify"):
        LogpCache("a model and bfloat16", folder=None, limit_bytes=0)


def test_without_a_folder_it_is_in_memory() -> None:
    kept = opened(None)
    kept.put(number(1), value(1))
    kept.flush()
    kept.refresh()
    found = kept.get(number(1))
    kept.close()
    assert found is not None
    assert torch.equal(found, value(1))
    assert kept.written == 0


@pytest.mark.parametrize("wrong", [torch.tensor([-1.0, float("nan")]), torch.zeros(1, 2), torch.tensor(1.0)])
def test_what_is_no_row_of_numbers_is_refused(root: Path, wrong: torch.Tensor) -> None:
    kept = opened(root)
    with pytest.raises(ValueError, match="numbers in one row"):
        kept.put(number(1), wrong)
    with pytest.raises(ValueError, match="a key is 16 bytes"):
        kept.put(b"short", value(1))
    kept.close()
    assert files(root) == []


def test_it_is_written_as_tokens_or_time_add_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = opened(root)
    monkeypatch.setattr(cache, "TOKENS", 100)
    kept.put(number(1), torch.zeros(60))
    assert files(root) == []
    kept.put(number(2), torch.zeros(60))
    assert len(files(root)) == 1
    monkeypatch.setattr(cache, "SECONDS", 0.0)
    kept.put(number(3), torch.zeros(1))
    assert len(files(root)) == 2
    assert kept.written == 3
    kept.close()
    assert len(files(root)) == 2


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


def test_a_reader_learns_what_others_have_written(root: Path) -> None:
    reader = opened(root)
    fill(root, range(3))
    assert reader.get(number(1)) is None
    reader.refresh()
    assert reader.get(number(1)) is not None
    reader.close()


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


def test_a_shard_cut_short_is_set_aside(root: Path) -> None:
    fill(root, range(5))
    fill(root, range(5, 10))
    path = files(root)[0]
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        reader = opened(root)
        assert len(reader.problems) == 1
        assert str(path) in reader.problems[0]
        assert sum(reader.get(number(index)) is not None for index in range(10)) == 5
        reader.close()
        assert not path.exists()
        assert path.with_suffix(".damaged").stat().st_size == length  # not older than a day, so it is still there
    path.write_bytes(whole)
    assert held(root, range(10)) == set(range(10))


def test_no_damaged_byte_passes(root: Path) -> None:
    """Each byte of a file in turn: what comes back is right or nothing."""
    fill(root, range(4))
    (path,) = files(root)
    whole = path.read_bytes()
    lost = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x15
        path.write_bytes(damaged)
        lost += held(root, range(4)) != {0, 1, 2, 3}
        path.unlink(missing_ok=True)
    assert lost > 0.9 * (len(whole) - 60)  # the free words in the header do not count


def test_damage_that_shows_late(root: Path) -> None:
    """Numbers are read when they are asked for. Until then nobody sees what became of them."""
    fill(root, range(10))
    (path,) = files(root)
    fill(root, range(10, 20))
    reader = opened(root)
    with path.open("r+b") as file:
        begin, count = shards.read_header(file).places["logps"]
        file.seek(begin)
        file.write(b"\xff" * count)
    there = {index for index in range(20) if reader.get(number(index)) is not None}
    assert {index for index in there if len(value(index))} == set(range(10, 20))
    assert len(reader.problems) == 1
    assert "checksums" in reader.problems[0]
    reader.put(number(1), value(1))
    reader.close()
    assert held(root, range(20)) == {1, *range(10, 20)}


@pytest.mark.parametrize("change", ["version", "identity", "nothing in it"])
def test_a_foreign_shard_is_set_aside(root: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    with monkeypatch.context() as patch:
        if change == "version":
            patch.setattr(shards, "VERSION", "0")
        fill(root, range(3), ONE[:32] + "0" * 32 if change == "identity" else ONE)
    if change == "nothing in it":
        files(root)[0].write_bytes(save({}, {"version": shards.VERSION, "identity": ONE}))
    reader = opened(root)
    assert reader.get(number(1)) is None
    assert len(reader.problems) == 1
    assert files(root) == []
    assert len(files(root, ".damaged")) == 1


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


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPO_CACHE", "~/there")
    assert cache_root() == Path(os.environ["HOME"]) / "there"
    monkeypatch.setenv("XPO_CACHE", "")
    assert cache_root() == Path(os.environ["XDG_CACHE_HOME"]) / "xpo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path(os.environ["HOME"]) / ".cache" / "xpo"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 10**10), ("5GB", 5 * 10**9), (" 1.5 tb", 15 * 10**11), ("2GiB", 2**31), ("700m", 7 * 10**8), ("12", 12)],
)
def test_how_large_it_may_be(monkeypatch: pytest.MonkeyPatch, text: str, expected: int) -> None:
    monkeypatch.setenv("XPO_CACHE_LIMIT", text)
    assert cache_limit() == expected


@pytest.mark.parametrize("text", ["much", "-1GB", "5 parsecs", "GB"])
def test_a_limit_that_is_no_size(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("XPO_CACHE_LIMIT", text)
    with pytest.raises(SettingError, match=r"XPO_CACHE_LIMIT.*5GB"):
        cache_limit()


def test_what_is_in_it(root: Path) -> None:
    assert contents(root) == []
    fill(root, range(10), ONE, model="a/b")
    opened(root, ONE, model="another name").close()
    note = json.loads((store.place(root, ONE) / "about.json").read_text())
    assert note["model"] == "a/b"
    assert note["identity"] == ONE
    assert {"created", "xpo"} < set(note)
    fill(root, range(3), TWO)
    (store.place(root, TWO) / "about.json").write_text("[]")
    mine = {stored.identity: stored for stored in contents(root)}
    assert list(mine) == [TWO[:32], ONE[:32]]
    stored = mine[ONE[:32]]
    assert (stored.model, stored.completions) == ("a/b", 10)
    assert stored.tokens == sum(len(value(index)) for index in range(10))
    assert stored.size == sum(path.stat().st_size for path in store.place(root, ONE).iterdir())
    assert abs(stored.used - time.time()) < 60
    assert mine[TWO[:32]].model == "?"


def test_clearing_takes_only_what_is_ours(root: Path) -> None:
    fill(root, range(10), ONE)
    fill(root, range(10), TWO)
    other = store.place(root, TWO) / "notes.txt"
    other.write_text("mine")
    sizes = {stored.identity: stored.size for stored in contents(root)}
    assert clear(root, older_than_days=1) == 0
    assert clear(root, ONE[:32]) == sizes[ONE[:32]]
    assert not store.place(root, ONE).exists()
    for path in store.place(root, TWO).iterdir():
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert clear(root, older_than_days=1) == sizes[TWO[:32]]
    assert [path.name for path in store.place(root, TWO).iterdir()] == ["notes.txt"]
    assert contents(root) == []
