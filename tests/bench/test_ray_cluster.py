"""Cells on a real cluster of two machines, one of which is killed: the table is whole, and that of one machine."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no types
import pytest

from tests.bench.conftest import suite
from tests.bench.test_ray import alive, wait_for
from tests.conftest import ROOT
from xpo.bench import ray_driver, run
from xpo.bench.executor import Job
from xpo.bench.ray_executor import RayExecutor
from xpo.errors import SettingError

pytest.importorskip("ray", reason="Ray is not installed")

#: A cell that waits for a file before it writes its made-up result. On a machine that is killed, its process is left
#: alone and goes on, as one that is merely out of sight: it writes when all others have finished.
CELL = """
import json, os, sys, time
from pathlib import Path
from tests.bench.madeup import result
go, path = map(Path, sys.argv[1:])
job, parent = json.loads(path.read_text()), os.getppid()
with (go.parent / "begun").open("a") as begun:
    print(os.getpid(), parent, job.get("method"), job.get("seed"), file=begun)
while "seed" in job and not go.exists():
    time.sleep(0.05)
if os.getppid() != parent:
    while not (go.parent / "over").exists():
        time.sleep(0.05)
    job["seed"] = 99
(path.parent / "result.json").write_text(json.dumps(result(job)))
"""


class Machines:
    """Two machines with a CPU each, on this one."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster  # type: ignore[import-not-found,unused-ignore]  # where it is not installed

        few = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
        self.cluster: Any = Cluster(initialize_head=True, head_node_args={**few, "include_dashboard": False})
        self.other = self.cluster.add_node(**few)
        self.address: str = self.cluster.address

    def raylet(self, node: Any) -> psutil.Process:
        """The process that has started the workers of a machine."""
        return psutil.Process(next(info.process.pid for info in node.all_processes["raylet"]))

    def kill_other(self) -> None:
        """As when its plug is pulled, but for the processes of cells: nothing of Ray gets to end them."""
        raylet = self.raylet(self.other)
        raylet.suspend()
        for worker in raylet.children():
            worker.kill()
        self.other.kill_all_processes(check_alive=False, allow_graceful=False)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Machines()
    yield made
    made.cluster.shutdown()


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the file that cells wait for."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    plain = run._process

    def process(key: str, path: Path) -> Job:
        made = plain(key, path)
        return Job(key, [sys.executable, "-c", CELL, str(tmp_path / "go"), made.argv[-1]], ROOT, made.log)

    monkeypatch.setattr(run, "_process", process)
    return tmp_path


def begun(folder: Path) -> list[list[str]]:
    file = folder / "begun"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def soon(found: Callable[[], Any], seconds: float = 90) -> Any:
    until = time.monotonic() + seconds
    while not (there := found()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return there


def test_a_machine_killed_in_the_middle_of_a_cell_takes_nothing_from_the_table(
    machines: Machines, cells: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--algos dpo,simpo,kto --seeds 0,1"
    orphans: list[int] = []

    def kill() -> None:
        there = lambda: {one.pid for one in machines.raylet(machines.other).children()}  # noqa: E731
        mine = soon(lambda: [one for one in begun(cells) if one[3] != "None" and int(one[1]) in there()])
        orphan, worker = int(mine[0][0]), int(mine[0][1])
        orphans.append(orphan)
        machines.kill_other()
        soon(lambda: psutil.Process(orphan).ppid() != worker)
        (cells / "go").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    found = suite(f"{words} --output_dir {cells / 'one'}", RayExecutor(2, machines.address, 0))
    killer.join()
    assert found.failures == []
    assert "was lost with its machine; it is run again (1 of 3 times)" in capsys.readouterr().err
    assert len(begun(cells)) == 1 + 6 + 1  # the start, six cells, one of them twice
    suite(f"{words} --output_dir {cells / 'two'}")
    tables = ("table.md", "table.csv", "records.json")
    assert alive(orphans[0])  # it has been there all the time, and has a result to write
    (cells / "over").touch()
    soon(lambda: not alive(orphans[0]))
    for name in tables:
        assert (cells / "one" / name).read_text() == (cells / "two" / name).read_text()
    run.write_outputs(cells / "one")
    for name in tables:
        assert (cells / "one" / name).read_text() == (cells / "two" / name).read_text()
    assert not list(cells.glob("one/**/attempt-*"))
    assert len(list(cells.glob("one/**/result.json"))) == 7


def test_with_less_room_than_jobs_they_wait_and_what_fails_is_not_run_again(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    where = RayExecutor(3, machines.address, 0)
    code = "import sys; open('begun', 'a').write('x'); print('xpo: no'); sys.exit(int(sys.argv[1]))"
    for key in ("0", "3", "2"):
        (tmp_path / key).mkdir()
        where.start(Job(key, [sys.executable, "-c", code, key], tmp_path, tmp_path / key / "log.txt"))
    assert {key: one.status for key, one in wait_for(where, 3).items()} == {"0": 0, "3": 3, "2": 2}
    where.stop()
    assert (tmp_path / "begun").read_text() == "xxx"


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_no_process_is_left_on_any_machine(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    where = RayExecutor(1, machines.address, 0)
    code = (
        "import os, time; from xpo.bench.worker import _end_with; _end_with(os.environ['XPO_BENCH_PARENT'])\n"
        "open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
    )
    (tmp_path / "a").mkdir()
    where.start(Job("a", [sys.executable, "-c", code], tmp_path, tmp_path / "a/log.txt"))
    pid = int(soon(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()))
    if how == "killed":
        where._driver._process.kill()
        soon(lambda: not alive(pid))
    where.stop()
    assert not alive(pid)


@pytest.mark.slow
def test_a_cluster_that_dies_is_said_and_the_suite_goes_on(
    machines: Machines, cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last test: it takes the cluster away."""
    monkeypatch.setitem(ray_driver._RECONNECT, "RAY_gcs_rpc_server_reconnect_timeout_s", "2")
    line = f"--algos dpo,simpo --output_dir {cells / 'one'}"

    def kill() -> None:
        soon(lambda: [one for one in begun(cells) if one[3] != "None"])
        machines.cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(SettingError, match=r"the Ray cluster is gone \(.*The same command goes on when there is"):
        suite(line, RayExecutor(1, machines.address, 0))
    killer.join()
    (cells / "go").touch()  # what was left running may end
    assert json.loads((cells / "one/suite.json").read_text())["cells"]
    assert suite(line).failures == []
