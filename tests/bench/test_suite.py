"""Suites go on where they were stopped, keep what failed, and refuse what would make their cells unlike."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has no types
import pytest

from tests.bench.conftest import Here, made_up, suite
from tests.bench.madeup import result
from tests.conftest import ROOT, MakePackage
from xpo.bench.executor import Ended, Job, LocalExecutor, launch
from xpo.errors import XpoError
from xpo.train.flags import parse

TABLES = ("table.md", "table.tex", "table.csv", "records.json", "report.html")


def tables(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in TABLES}


@pytest.fixture
def line(tmp_path: Path) -> str:
    return f"--algos dpo,simpo,kto --seeds 0,1 --output_dir {tmp_path / 'one'}"


def test_a_suite_that_was_interrupted_runs_what_is_missing_and_ends_with_the_same_table(
    line: str, tmp_path: Path
) -> None:
    whole = Here(made_up)
    suite(line, whole)
    assert len(whole.ran) == 7  # the start, and three methods twice
    other = line.replace("one", "two")
    first = Here(made_up, end=4)
    with pytest.raises(KeyboardInterrupt):
        suite(other, first)
    assert first.stopped == 1
    assert "not finished: 3 of 6 cells have not been run" in (tmp_path / "two/table.md").read_text()
    again = Here(made_up)
    suite(other, again)
    assert first.ran + again.ran == whole.ran  # nothing twice
    assert tables(tmp_path / "two") == tables(tmp_path / "one")
    nothing = Here(made_up)
    suite(other, nothing)
    assert nothing.ran == []
    assert tables(tmp_path / "two") == tables(tmp_path / "one")


def test_half_done_cells_are_done_again_from_nothing(line: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        suite(line, Here(made_up, end=2))
    half = next(tmp_path.glob("one/cells/simpo*"), tmp_path / "one/cells/none") / "seed-0"
    assert half.is_dir()
    (half / "run").mkdir(parents=True)
    (half / "run/model.safetensors").write_text("half")
    (half / ".result.json.123").write_text('{"half')
    suite(line)
    assert not (half / "run").exists()
    assert not (half / ".result.json.123").exists()
    assert (half / "result.json").exists()


def test_half_written_files_and_the_start_of_another_suite_are_no_obstacle(line: str, tmp_path: Path) -> None:
    one = tmp_path / "one"
    (one / "start").mkdir(parents=True)
    (one / ".suite.json.4711").write_text('{"half')
    other = {"data": "other", "shared": {"validation": False}}
    (one / "start/result.json").write_text(json.dumps({**result(other), "model": "another"}))
    first = Here(made_up)
    suite(line, first)
    assert first.ran[0] == "start"
    assert json.loads((one / "start/result.json").read_text())["model"] == "m"
    (one / ".report.html.4711").write_text("<ht")
    (one / "thesis.tex").write_text("mine")
    suite(line)
    assert not [file.name for file in one.iterdir() if file.name.startswith(".") and file.name != ".lock"]
    assert (one / "thesis.tex").read_text() == "mine"


def test_a_whole_result_counts_whatever_became_of_its_process(line: str, tmp_path: Path) -> None:
    class Crashing(Here):
        def ended(self, timeout: float) -> list[Ended]:
            return [Ended(self.ran[-1], -signal.SIGSEGV, 1.0)]

    assert suite(line, Crashing(made_up)).failures == []
    suite(line.replace("/one", "/two"))
    assert tables(tmp_path / "one") == tables(tmp_path / "two")


def test_a_directory_that_cannot_be_used_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(XpoError, match=r"file/one: .*/file is not a directory; choose another"):
        suite(f"--algos dpo --output_dir {tmp_path}/file/one")
    with monkeypatch.context() as denied:
        denied.setattr("xpo.bench.directory.os.access", lambda *_: False)
        with pytest.raises(XpoError, match=rf"--output_dir {tmp_path}/one: {tmp_path} is not writable"):
            suite(f"--algos dpo --output_dir {tmp_path}/one")

    def denying(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as denied:
        denied.setattr("xpo.bench.directory.Path.mkdir", denying)
        with pytest.raises(XpoError, match=rf"{tmp_path}/one: .*/one: Permission denied; free the way or choose"):
            suite(f"--algos dpo --output_dir {tmp_path}/one")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file"]


def failing(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    if job.get("method") == "simpo" and job.get("seed") == 1:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    return made_up(job, folder)


def test_a_cell_that_fails_is_in_every_output_with_its_reason(line: str, tmp_path: Path) -> None:
    found = suite(line, Here(failing))
    [(which, why)] = found.failures
    assert (which, why) == (
        "simpo, seed 1",
        "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB (exit status 1)",
    )
    for name, text in tables(tmp_path / "one").items():
        assert "CUDA out of memory. Tried to allocate 2 GiB" in text, name
    [cell] = [one for one in json.loads(tables(tmp_path / "one")["records.json"])["cells"] if one["status"] == "failed"]
    assert cell["failed"]["out_of_memory"] is True
    assert [line.state for line in found.lines if line.method == "simpo"] == ["part"]
    again = Here(made_up)
    assert suite(line, again).failures == [(which, why)]  # what failed is not missing
    assert again.ran == []
    retried = Here(made_up)
    assert suite(f"{line} --retry_failed", retried).failures == []
    assert retried.ran == [cell["folder"]]
    suite(line.replace("one", "two"))
    assert tables(tmp_path / "one") == tables(tmp_path / "two")


def test_a_method_of_which_every_cell_failed_stays_in_the_table(line: str, tmp_path: Path) -> None:
    def broken(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        if job.get("method") == "kto":
            raise ValueError("no")
        return made_up(job, folder)

    found = suite(line, Here(broken))
    assert found.lines[-1].method == "kto"
    assert found.lines[-1].state == "failed"
    [row] = [row for row in (tmp_path / "one/table.md").read_text().splitlines() if row.startswith("| kto | 0/2")]
    assert "failed" in row


def test_a_suite_may_grow_but_not_change(line: str, tmp_path: Path) -> None:
    suite(line)
    more = Here(made_up)
    suite(line.replace("0,1", "0,1,2").replace("dpo,", "dpo,ipo,"), more)
    assert len(more.ran) == 2 + 3 + 1
    before = tables(tmp_path / "one")
    for other, message in (
        (f"{line} --learning_rate 1e-5", "1 was among the seeds|learning_rate of dpo was None and is 1e-05|ipo was"),
        (line.replace("simpo,", ""), "simpo was among the methods|ipo was among the methods"),
        (f"{line} --eval_tokens 9", "eval_tokens was 128 and is 9"),
        (f"{line} --budget_tokens 500", "budget_tokens was None and is 500"),
        (f"{line} --dataset testbed:noise=0.3", "dataset_name was None and is 'testbed:noise=0.3'"),
        (f"{line} --grid beta=0.1,0.5", "validation was False and is True; settings are chosen on validation prompts"),
    ):
        with pytest.raises(XpoError, match=message):
            suite(other)
    assert tables(tmp_path / "one") == before


def test_more_values_may_be_tried(tmp_path: Path) -> None:
    line = f"--algos dpo --seeds 0 --output_dir {tmp_path / 'one'} --grid"
    suite(f"{line} beta=0.1,0.5")
    more = Here(made_up)
    found = suite(f"{line} beta=0.05,0.5,0.1", more)
    assert len(more.ran) == 1
    assert [one.setting for one in found.tried] == ["beta=0.05", "beta=0.5", "beta=0.1"]
    with pytest.raises(XpoError, match=r"beta of dpo was 0.05 and is"):
        suite(f"{line} beta=0.5,0.1")


def test_commands_train_the_same_by_hand(tmp_path: Path) -> None:
    kwargs = '{"num_cycles":2}'  # no spaces: a command line is split at them here
    line = f"--algos dpo --lr_scheduler_kwargs {kwargs} --beta 1e-5 --output_dir {tmp_path}"
    suite(f"{line}/one --max_steps 9")
    suite(f"{line}/two --budget_tokens 50")
    commands = []
    for name in ("one", "two"):
        [cell] = json.loads((tmp_path / name / "records.json").read_text())["cells"]
        commands.append(cell["command"])
        assert parse(cell["command"][2:]).training.lr_scheduler_kwargs == {"num_cycles": 2}
    assert [parse(words[2:]).training.max_steps for words in commands] == [9, 2]  # 2 steps are what the budget bought
    assert [parse(words[2:]).algorithm.beta for words in commands] == [1e-5, 1e-5]


def test_data_that_changed_is_refused(small: Path, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text((small / "pairs.jsonl").read_text())
    line = f"--algos dpo --model {small}/model --dataset {data} --eval_size 9 --max_steps 1 --output_dir {tmp_path}/one"
    suite(line)
    data.write_text("".join(data.read_text().splitlines(True)[:-1]))
    with pytest.raises(XpoError, match="the data itself has changed"):
        suite(line)


def test_a_start_that_cannot_be_examined_ends_it_with_nothing_written(line: str, tmp_path: Path) -> None:
    def broken(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        raise XpoError("model 'x' cannot be loaded")

    with pytest.raises(XpoError, match=r"the start cannot be examined: .*model 'x' cannot be loaded"):
        suite(line, Here(broken))
    assert not (tmp_path / "one").exists()


def test_interrupted_while_the_start_is_examined_it_leaves_nothing(line: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        suite(line, Here(made_up, end=0))
    assert list(tmp_path.iterdir()) == []


#: A bench whose cells are processes that take a moment and write a made-up result.
SLOW = """
import sys, time, json
from pathlib import Path
from xpo.bench import run
from xpo.bench.reading import read
from xpo.plugins import load
from xpo.train.sources import from_argv

CHILD = '''
import json, os, sys, time
sys.path[:0] = {path}
from tests.bench.madeup import result
from xpo.bench.worker import _end_with
_end_with(os.environ["XPO_BENCH_PARENT"])
job = __import__("pathlib").Path(sys.argv[1])
(job.parent / "pid").write_text(str(os.getpid()))
found = result(json.loads(job.read_text()))
time.sleep(float(os.environ["MOMENT"]))
(job.parent / "result.json").write_text(json.dumps(found))
'''
plain = run._process
def process(key, job):
    made = plain(key, job)
    argv = [sys.executable, "-c", CHILD.replace("{path}", repr(sys.path)), made.argv[-1]]
    return run.Job(key, argv, made.folder, made.log)
run._process = process
run.run(read(from_argv(sys.argv[1:])), load())
"""


def test_killed_outright_it_leaves_no_process_and_goes_on_where_it_was(line: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", SLOW, *line.replace("dpo,simpo,kto", "dpo,simpo").split(), "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MOMENT": "0"}
    one = tmp_path / "one"
    process = subprocess.Popen(words, cwd=ROOT, env={**environment, "MOMENT": "600"}, start_new_session=True)
    _start_made_up(one, process)
    until = time.monotonic() + 120
    while len(children := list(one.glob("cells/*/*/pid"))) < 2 or not all(one.read_text() for one in children):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    pids = [int(child.read_text()) for child in children]
    assert all(map(_alive, pids))
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(words, cwd=ROOT, env=environment, check=True)  # waits until the orphans are gone
    assert not any(map(_alive, pids))
    suite(line.replace("dpo,simpo,kto", "dpo,simpo").replace("/one", "/two"))
    assert tables(one) == tables(tmp_path / "two")


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _start_made_up(folder: Path, process: subprocess.Popen[bytes]) -> None:
    """Spare the start its wait."""
    until = time.monotonic() + 120
    while not (folder / "start/pid").exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    job = json.loads((folder / "start/job.json").read_text())
    (folder / "start/result.json").write_text(json.dumps(result(job)))
    os.kill(int((folder / "start/pid").read_text()), signal.SIGKILL)


def test_two_benches_do_not_work_in_one_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xpo.bench import directory

    monkeypatch.setattr(directory, "_PATIENCE", 0.0)
    with (
        directory.locked(tmp_path),
        pytest.raises(XpoError, match="another xpo bench is at work there"),
        directory.locked(tmp_path),
    ):
        pass


def test_processes_end_with_a_signal_a_status_and_a_log(tmp_path: Path) -> None:
    where = LocalExecutor(2)
    code = textwrap.dedent("""
        import os, signal, sys
        print(os.environ["XPO_BENCH_PARENT"], os.environ["OMP_NUM_THREADS"])
        os.kill(os.getpid(), signal.SIGKILL) if sys.argv[1] == "kill" else sys.exit(3)
    """)
    for key in ("kill", "leave"):
        where.start(Job(key, [sys.executable, "-c", code, key], tmp_path, tmp_path / key, {"OMP_NUM_THREADS": "7"}))
    found = {}
    while len(found) < 2:
        found |= {one.key: one.status for one in where.ended(1.0)}
    assert found == {"kill": -9, "leave": 3}
    assert (tmp_path / "leave").read_text() == f"{os.getpid()} 7\n"


def test_stopping_leaves_no_process(tmp_path: Path) -> None:
    where = LocalExecutor(1)
    where.start(Job("long", [sys.executable, "-c", "import time; time.sleep(600)"], tmp_path, tmp_path / "log"))
    process = where._running[0].process
    where.stop()
    assert process.returncode == -signal.SIGTERM
    assert where.ended(0.0) == []


def test_gpus_are_dealt_out_by_slot(tmp_path: Path) -> None:
    where = LocalExecutor(2, ["4", "5"])
    for key in ("a", "b"):
        code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
        where.start(Job(key, [sys.executable, "-c", code], tmp_path, tmp_path / key))
    seen = 0
    while seen < 2:
        seen += len(where.ended(1.0))
    assert [(tmp_path / key).read_text() for key in ("a", "b")] == ["4\n", "5\n"]


def test_a_launched_process_has_no_terminal_to_hear_from(tmp_path: Path) -> None:
    process = launch(Job("x", [sys.executable, "-c", "import os; print(os.getsid(0))"], tmp_path, tmp_path / "log"))
    assert process.wait() == 0
    assert int((tmp_path / "log").read_text()) == process.pid != os.getsid(0)


def test_a_plugin_is_a_method_like_any_other(package: MakePackage, tmp_path: Path) -> None:
    source = (
        "from xpo import Algorithm, Paper, hookimpl\n"
        "class Other(Algorithm):\n"
        "    name, summary, equation, data = 'other', 'one', 'L = 0', 'pairs'\n"
        "    paper = Paper('none', 'http://example.org', 2024)\n"
        "    def loss(self, batch, policy, reference):\n"
        "        raise RuntimeError('it cannot')\n"
        "@hookimpl\n"
        "def xpo_algorithms():\n"
        "    return [Other]\n"
    )
    package("another", {"another.py": source}, {"another": "another"})
    found = suite(f"--algos dpo,other --output_dir {tmp_path / 'one'}")
    assert {line.method for line in found.lines} == {"start", "dpo", "other"}
