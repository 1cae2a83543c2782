"""Cells on a cluster, without one: a stand-in plays the library, in the process that talks to it.

What is lost runs again, what fails does not, and nobody writes where results are read but who has done the job.
"""

from __future__ import annotations

import inspect
import json
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no types
import pytest

from tests.bench import standin_ray
from tests.bench.conftest import suite
from tests.conftest import ROOT
from xpo.bench import ray_cluster, ray_executor, run
from xpo.bench.executor import Ended, Job, LocalExecutor
from xpo.bench.ray_cluster import Cluster, job_of, told
from xpo.bench.ray_executor import AGAIN, RayExecutor
from xpo.errors import SettingError


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that tells the stand-in what is to go wrong."""
    folder, site = tmp_path / "said", tmp_path / "site"
    folder.mkdir()
    site.mkdir()
    (site / "ray.py").write_text(Path(standin_ray.__file__).read_text())
    monkeypatch.setenv("STANDIN_RAY", str(folder))
    monkeypatch.setenv("PYTHONPATH", f"{site}:{ROOT}")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(ray_executor, "installed", lambda: True)  # not imported here, whichever there is
    return folder


def job(folder: Path, code: str, key: str = "a") -> Job:
    home = folder / key
    home.mkdir()
    (home / "job.py").write_text(code)
    return Job(key, [sys.executable, str(home / "job.py")], folder, home / "log.txt")


def wait_for(where: RayExecutor, count: int) -> dict[str, Ended]:
    found: dict[str, Ended] = {}
    until = time.monotonic() + 60
    while len(found) < count:
        assert time.monotonic() < until
        found |= {one.key: one for one in where.ended(1.0)}
    return found


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


#: A job that leaves a folder and a result beside it, and a line in a file for each time it was begun.
WRITES = """
import os, pathlib, sys
here = pathlib.Path(__file__).parent
with open("begun", "a") as begun:
    print(here.name, os.getpid(), file=begun)
(here / "run").mkdir()
(here / "run/model").write_text("weights")
(here / "result.json").write_text("whole")
print("worked")
"""


def test_it_has_the_interface_of_the_local_one() -> None:
    for name in ("start", "ended", "stop"):
        here, there = (inspect.signature(getattr(cls, name)) for cls in (LocalExecutor, RayExecutor))
        assert here.parameters.keys() == there.parameters.keys()


def test_what_a_job_leaves_is_where_it_would_be_and_what_fails_is_not_run_again(said: Path, tmp_path: Path) -> None:
    where = RayExecutor(2, "here:1", 0)
    assert where.ended(0.0) == []
    where.start(job(tmp_path, WRITES))
    where.start(job(tmp_path, WRITES + "\nsys.exit(3)", "b"))
    found = wait_for(where, 2)
    where.stop()
    assert {key: one.status for key, one in found.items()} == {"a": 0, "b": 3}
    assert {one.name for one in (tmp_path / "a").iterdir()} == {"job.py", "log.txt", "run", "result.json"}
    assert (tmp_path / "a/log.txt").read_text() == "worked\n"
    assert (tmp_path / "a/run/model").read_text() == "weights"
    assert {one.name for one in (tmp_path / "b").iterdir()} == {"job.py", "log.txt"}  # no result of what failed
    assert len((tmp_path / "begun").read_text().splitlines()) == 2


#: The first attempt is out of sight and not gone: it goes on, and writes when the second has done the job.
SURVIVES = """
import os, pathlib, sys, time
here = pathlib.Path(__file__).parent
mine = pathlib.Path("first")
if not mine.exists():
    mine.write_text(str(os.getpid()))
    (here / "result.json").write_text("half")
    while not (here.parent / "result.json").exists() and here.exists():
        time.sleep(0.05)
    try:
        (here / "result.json").write_text("too late")
        print("too late", flush=True)
    finally:
        mine.write_text("ended")
else:
    (here / "result.json").write_text("whole")
"""


def test_what_is_lost_is_run_again_and_two_never_write_in_one_folder(said: Path, tmp_path: Path) -> None:
    (said / "lose").write_text("1")
    where = RayExecutor(1, None, 0)
    where.start(job(tmp_path, SURVIVES))
    assert wait_for(where, 1)["a"].status == 0
    until = time.monotonic() + 30
    while (tmp_path / "first").read_text() != "ended":
        assert time.monotonic() < until
        time.sleep(0.05)
    where.stop()
    assert (tmp_path / "a/result.json").read_text() == "whole"
    log = (tmp_path / "a/log.txt").read_text()
    assert "lost with its machine (NodeDiedError: the machine is gone); run again, 1 of 3 times" in log
    assert "too late" not in log


def test_what_is_lost_again_and_again_has_failed_with_that_reason(said: Path, tmp_path: Path) -> None:
    (said / "lose").write_text("99")
    where = RayExecutor(1, None, 0)
    where.start(job(tmp_path, WRITES))
    assert wait_for(where, 1)["a"].status == 1
    where.stop()
    last = (tmp_path / "a/log.txt").read_text().splitlines()[-1]
    assert last.startswith(f"xpo: lost with its machine {AGAIN + 1} times in a row, the last time: NodeDiedError")
    assert len((tmp_path / "begun").read_text().splitlines()) == AGAIN + 1
    assert not (tmp_path / "a/result.json").exists()
    assert not list((tmp_path / "a").glob("attempt-*"))


def test_a_job_that_cannot_be_started_there_has_failed(said: Path, tmp_path: Path) -> None:
    made = job(tmp_path, WRITES)
    where = RayExecutor(1, None, 0)
    where.start(Job("a", made.argv, Path("/no/such/folder"), made.log))
    assert wait_for(where, 1)["a"].status == 1
    where.stop()
    assert "xpo: Ray could not run it: it could not be started there: FileNotFoundError" in made.log.read_text()


def test_where_ray_ends_its_driver_the_suite_goes_on_with_another(
    said: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = RayExecutor(1, None, 0)
    where.start(
        job(
            tmp_path,
            WRITES.replace("print(", "import time; time.sleep(2 * (not mine)); print(", 1).replace(
                "here =", "mine = os.path.exists('begun')\nhere =", 1
            ),
        )
    )
    (said / "die").touch()
    assert wait_for(where, 1)["a"].status == 0
    where.stop()
    assert "a was lost with its machine; it is run again (1 of 3 times)" in capsys.readouterr().err


def test_a_cluster_that_is_gone_ends_the_suite_which_goes_on_later(said: Path, tmp_path: Path) -> None:
    line = f"--algos dpo,simpo --output_dir {tmp_path / 'one'}"
    where = RayExecutor(1, "here:1", 0)
    (said / "gone").touch()
    (said / "die").touch()
    with pytest.raises(SettingError, match=r"the Ray cluster is gone .*nobody answers.* The same command goes on"):
        suite(line, where)
    suite(line)
    assert not list(tmp_path.glob("one/**/attempt-*"))


def test_machines_are_looked_at_before_anything_is_run(
    said: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingError, match="--address nowhere: there is no Ray cluster to use: nobody answers"):
        RayExecutor(1, "nowhere", 0)
    with pytest.raises(SettingError, match="no machine of the cluster has a CPU and 2 GPUs, which a cell needs"):
        RayExecutor(1, None, 2)
    where = RayExecutor(5, None, 0)
    assert "the cluster has room for 2 cells at a time; others of --jobs 5 wait there" in capsys.readouterr().err
    where.stop()


def test_a_cluster_without_machines_is_not_waited_for_for_ever(
    said: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_executor, "_PATIENCE", 1.0)
    where = RayExecutor(1, None, 0)
    where.start(job(tmp_path, "import time; time.sleep(600)"))
    (said / "nodes").write_text(json.dumps([{**standin_ray.NODES[0], "Alive": False}]))
    with pytest.raises(SettingError, match="no machine of the Ray cluster has been able to run a cell for 1 seconds"):
        wait_for(where, 1)
    where.stop()


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_no_process_is_left(said: Path, tmp_path: Path, how: str) -> None:
    code = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
    where = RayExecutor(1, None, 0)
    where.start(job(tmp_path, code + "\n"))
    until = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    if how == "killed":  # as when this process were: nothing is said, the other's input ends
        assert where._driver._process.stdin is not None
        where._driver._process.stdin.close()
        where._driver._process.wait(60)
    else:
        where.stop()
    assert not alive(pid)


def test_a_suite_runs_through_it(said: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import json, sys; from pathlib import Path; from tests.bench.madeup import result; job = Path(sys.argv[1])\n"
        "(job.parent / 'result.json').write_text(json.dumps(result(json.loads(job.read_text()))))"
    )
    plain = run._process

    def process(key: str, path: Path) -> Job:
        made = plain(key, path)
        return Job(key, [sys.executable, "-c", code, made.argv[-1]], ROOT, made.log)

    monkeypatch.setattr(run, "_process", process)
    (said / "lose").write_text("2")
    suite(f"--algos dpo,simpo --output_dir {tmp_path / 'one'}", RayExecutor(2, None, 0))
    suite(f"--algos dpo,simpo --output_dir {tmp_path / 'two'}")
    for name in ("records.json", "table.md", "table.csv"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()
    assert not list(tmp_path.glob("one/**/attempt-*"))


def test_what_is_not_installed_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    from xpo.bench.reading import read
    from xpo.plugins import load
    from xpo.train.sources import from_argv

    there = read(from_argv(f"--algos dpo --executor ray --output_dir {tmp_path / 'one'}".split()))
    with pytest.raises(SettingError, match="--executor ray needs Ray, which is not installed: pip install ray"):
        run.run(there, load())
    assert not (tmp_path / "one").exists()


def test_a_job_arrives_as_it_was(tmp_path: Path) -> None:
    made = Job("a", ["x", "y"], tmp_path, tmp_path / "log", {"A": "1"})
    assert job_of(json.loads(json.dumps(told(made)))) == made


@pytest.mark.parametrize(
    ("status", "dies", "lost"),
    [(0, True, False), (3, True, False), (-signal.SIGTERM, False, True), (-9, True, True), (-9, False, False)],
)
def test_a_signal_is_the_machines_if_that_goes_down(
    status: int, dies: bool, lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "_DYING", 0.3)
    looks = iter([True, not dies])
    ray = SimpleNamespace(
        **{name: getattr(standin_ray, name) for name in ("init", "remote", "wait", "exceptions", "shutdown")},
        get=lambda one: (status, "one"),
        nodes=lambda: [{**standin_ray.NODES[0], "Alive": next(looks, not dies)}],
    )
    monkeypatch.setattr(ray_cluster, "run_job", lambda job: None)
    cluster = Cluster(None, 0, ray)
    cluster.start(Job("a", [], Path(), Path()))
    found: list[dict[str, Any]] = []
    while not found:
        found = list(cluster.ended())
    assert ("lost" in found[0]) is lost
    assert found[0].get("status", status) == status
