"""The executor on a cluster has the interface of the one on this machine; a stand-in plays the library."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bench.conftest import suite
from xpo.bench.executor import Job, LocalExecutor
from xpo.bench.ray_executor import RayExecutor
from xpo.errors import SettingError


class Ray:
    """As much of Ray as is used: a task runs when somebody waits for it."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.calls: list[Any] = []
        self.lost = False

    def init(self, **settings: Any) -> None:
        self.calls.append(("init", settings["address"]))
        if settings["address"] == "nowhere":
            raise ConnectionError("no cluster")

    def remote(self, function: Callable[[Job], int]) -> Any:
        ray = self

        class Task:
            def options(self, **settings: Any) -> Task:
                ray.options = settings
                return self

            def remote(self, job: Job) -> Any:
                return lambda: function(job)

        return Task()

    def wait(self, some: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return some[:num_returns], some[num_returns:]

    def get(self, one: Any) -> int:
        if self.lost:
            raise RuntimeError("the node\ndied")
        return int(one())

    def cancel(self, one: Any, force: bool) -> None:
        self.calls.append(("cancel", force))

    def shutdown(self) -> None:
        self.calls.append(("shutdown", None))


def job(folder: Path, code: str) -> Job:
    return Job("a", [sys.executable, "-c", code], folder, folder / "log")


def test_it_has_the_interface_of_the_local_one() -> None:
    for name in ("start", "ended", "stop"):
        here, there = (inspect.signature(getattr(cls, name)) for cls in (LocalExecutor, RayExecutor))
        assert here.parameters.keys() == there.parameters.keys()


def test_processes_run_and_their_status_comes_back(tmp_path: Path) -> None:
    ray = Ray()
    where = RayExecutor(2, "here:1", 1, ray)
    assert ray.calls == [("init", "here:1")]
    assert ray.options["num_gpus"] == 1
    assert where.ended(0.0) == []
    where.start(job(tmp_path, "import sys; print('said'); sys.exit(3)"))
    [ended] = where.ended(1.0)
    assert (ended.key, ended.status) == ("a", 3)
    assert (tmp_path / "log").read_text() == "said\n"
    assert where.ended(0.0) == []


def test_a_machine_that_is_lost_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    ray = Ray()
    where = RayExecutor(1, None, 0, ray)
    where.start(job(tmp_path, "pass"))
    ray.lost = True
    [ended] = where.ended(1.0)
    assert ended.status == 1
    assert "xpo: Ray lost the process: the node died" in (tmp_path / "log").read_text()


def test_stopping_cancels_what_runs(tmp_path: Path) -> None:
    ray = Ray()
    where = RayExecutor(1, None, 0, ray)
    where.start(job(tmp_path, "pass"))
    where.stop()
    assert ray.calls[1:] == [("cancel", True), ("shutdown", None)]


def test_what_is_not_there_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="--address nowhere: there is no Ray cluster to use: no cluster"):
        RayExecutor(1, "nowhere", 0, Ray())
    monkeypatch.setitem(sys.modules, "ray", None)  # not installed
    from xpo.bench.reading import read
    from xpo.bench.run import run
    from xpo.plugins import load
    from xpo.train.sources import from_argv

    told = read(from_argv(f"--algos dpo --executor ray --output_dir {tmp_path / 'one'}".split()))
    with pytest.raises(SettingError, match="--executor ray needs Ray, which is not installed: pip install ray"):
        run(told, load())
    assert not (tmp_path / "one").exists()


def test_a_suite_runs_through_it(tmp_path: Path) -> None:
    class Instant(Ray):
        def remote(self, function: Callable[[Job], int]) -> Any:
            from tests.bench.conftest import Here, made_up

            def here(job: Job) -> int:
                where = Here(made_up)
                where.start(job)
                return where.status

            return super().remote(here)

    suite(f"--algos dpo,simpo --output_dir {tmp_path / 'one'}", RayExecutor(2, None, 0, Instant()))
    suite(f"--algos dpo,simpo --output_dir {tmp_path / 'two'}")
    assert (tmp_path / "one/records.json").read_text() == (tmp_path / "two/records.json").read_text()
