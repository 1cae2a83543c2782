"""One run at a time in a directory, and no trace of the lock afterwards, however the run ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from xpo.errors import SettingError
from xpo.train.lock import LOCK, Lock

pytest.importorskip("fcntl")


def test_a_second_run_is_refused_by_the_name_of_the_first(tmp_path: Path) -> None:
    place = tmp_path / "a" / "run"
    with Lock(place) as first:
        first.check()
        assert not place.exists()
        first.take()
        for attempt in ("check", "take"):
            with Lock(place) as second, pytest.raises(SettingError) as caught:
                getattr(second, attempt)()
            assert f"process {os.getpid()} on " in str(caught.value)
            assert str(place) in str(caught.value)
        assert (place / LOCK).exists()
    with Lock(place) as third:
        third.check()
        third.take()


def test_nothing_stays_behind(tmp_path: Path) -> None:
    with Lock(tmp_path / "empty") as lock:
        lock.take()
    assert not (tmp_path / "empty").exists()
    with Lock(tmp_path / "run") as lock:
        lock.take()
        (tmp_path / "run" / "run.json").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]


def test_a_process_that_dies_gives_it_up(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from xpo.train.lock import Lock\n"
        "Lock(Path(sys.argv[1])).__enter__().take(); print('held', flush=True); time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            with pytest.raises(SettingError, match=f"process {other.pid} on "):
                Lock(tmp_path).check()
        finally:
            other.kill()
            other.wait()
    assert (tmp_path / LOCK).exists()
    with Lock(tmp_path) as lock:
        lock.check()
        lock.take()


def test_a_lock_on_a_file_that_has_been_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run ends, and removes its file, between the second one's opening and locking it."""
    real, stolen = Lock._lock, []

    def late(self: Lock, file: int, kind: int) -> None:
        if not stolen:
            stolen.append((tmp_path / LOCK).unlink())
        real(self, file, kind)

    monkeypatch.setattr(Lock, "_lock", late)
    with Lock(tmp_path) as lock:
        lock.take()
        with pytest.raises(SettingError), Lock(tmp_path) as other:
            other.take()


def test_other_ranks_take_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lock(tmp_path / "run") as first:
        first.take()
        monkeypatch.setenv("RANK", "1")
        with Lock(tmp_path / "run") as other:
            other.check()
            other.take()
        assert (tmp_path / "run" / LOCK).exists()
