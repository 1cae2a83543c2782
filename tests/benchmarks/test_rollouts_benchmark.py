"""The benchmark of rollouts: how sampling is timed, what a table says of a record, and one tiny run of both sides."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import trainer as transformers_trainer

from benchmarks.rollouts import worker
from benchmarks.rollouts.__main__ import main
from benchmarks.rollouts.cases import Case, Side
from benchmarks.rollouts.clock import Clock
from benchmarks.rollouts.job import Work
from benchmarks.rollouts.record import RECORDS
from benchmarks.rollouts.run import measure, run
from benchmarks.rollouts.table import WARMUP, newest, summarise, tables
from xpo.errors import SettingError
from xpo.train import rollouts


def test_the_clock_tells_steps_apart_and_leaves_out_what_came_before() -> None:
    clock = Clock(calls=[(9.0, 0.5, 7), (10.1, 0.2, 3), (10.4, 0.1, 4), (12.0, 1.0, 5)])
    assert clock.steps(10.0, [1.0, 4.0]) == [
        {"seconds": pytest.approx(0.3), "tokens": 7},
        {"seconds": 1.0, "tokens": 5},
    ]


def test_the_clock_gives_back_what_it_timed() -> None:
    clock = Clock()
    slow = clock.around(lambda word, times: (time.sleep(0.002), word * times)[1], lambda result, *_, **__: len(result))
    assert slow("ab", times=3) == "ababab"
    ((_, seconds, tokens),) = clock.calls
    assert seconds >= 0.002
    assert tokens == 6


def of_run(*steps: tuple[float, float, int]) -> dict[str, Any]:
    """A run by (seconds of a step, of it sampling, tokens)."""
    ends, now = [], 0.0
    for seconds, _, _ in steps:
        now += seconds
        ends.append(now)
    return {
        "ends": ends,
        "sampling": [{"seconds": one, "tokens": tokens} for _, one, tokens in steps],
        "memory_before": 10**9,
        "memory_peak": 2 * 10**9,
    }


WARM = [(50.0, 40.0, 999)] * WARMUP


def test_a_summary_leaves_out_the_steps_that_warm_up() -> None:
    found = summarise([of_run(*WARM, (2.0, 1.5, 100), (4.0, 1.0, 200)), of_run(*WARM, (3.0, 1.0, 50))])
    assert (found.step, found.fastest, found.slowest) == pytest.approx((3.0, 2.0, 4.0))
    assert found.sampling == 1.0
    assert found.rest == pytest.approx(2.0)  # of 0.5, 3 and 2
    assert found.tokens == pytest.approx(350 / 3)
    assert found.rate == pytest.approx(100)


def of_record(runs: list[dict[str, Any]], started: str = "2026-01-02T00:00:00") -> dict[str, Any]:
    sides = [{"name": "trl", "title": "TRL"}, {"name": "xpo", "title": "xpo"}]
    return {
        "benchmark": "rollouts",
        "format": 1,
        "started": started,
        "finished": started,
        "machine": {"name": "Abacus", "threads": 1},
        "versions": {"torch": "9"},
        "git": None,
        "model": "tiny",
        "work": {"prompts": 4, "samples": 2, "tokens": 8},
        "cases": [{"name": "rloo", "title": "RLOO", "sides": sides, "runs": runs}],
    }


def test_a_table_sets_every_side_against_the_first(tmp_path: Path) -> None:
    runs = [
        {"side": "trl", **of_run(*WARM, (2.0, 1.0, 100))},
        {"side": "xpo", **of_run(*WARM, (0.5, 0.25, 100))},
    ]
    told = tables(of_record(runs))
    assert "| xpo | 0.5 (0.5 to 0.5) | 25 % | 0.25 | 0.25 | 100 | 400 | 2.00 (1.00) |" in told
    assert "Abacus, 1 threads" in told
    assert "not finished" not in told
    (tmp_path / "rollouts-2026-01-02.json").write_text(json.dumps(of_record(runs)), encoding="utf-8")
    assert newest(tmp_path) == told
    assert RECORDS.place(of_record([]), tmp_path).name == "rollouts-2026-01-02-2.json"


def test_a_failed_run_stays_in_the_table_and_out_of_the_numbers() -> None:
    runs = [{"side": "trl", "failed": "no room"}, {"side": "xpo", **of_run(*WARM, (0.5, 0.25, 100))}]
    told = tables(of_record(runs))
    assert "| TRL | failed: no room |" in told
    assert "| xpo | 0.5 (0.5 to 0.5) |  |" in told  # nothing to compare with


def test_records_of_other_benchmarks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"benchmark": "testbed", "format": 1}', encoding="utf-8")
    with pytest.raises(SettingError, match="not a record of this benchmark"):
        RECORDS.read(path)


def test_fewer_steps_than_warm_up_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", str(WARMUP)]) == 2
    assert "give more" in capsys.readouterr().err


def here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """In place of a fresh process, which would spend its time importing."""

    others = subprocess.run

    def started(command: list[str], **told: Any) -> subprocess.CompletedProcess[str]:
        if worker.__name__ not in command:  # such as git, which the record asks
            return others(command, **told)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command[2:])
            patch.setattr(transformers_trainer, "DEFAULT_CALLBACKS", [*transformers_trainer.DEFAULT_CALLBACKS])
            patch.setattr(rollouts, "sample", rollouts.sample)
            worker.main()
        return subprocess.CompletedProcess(command, 0, "", "")

    return started


def test_both_sides_take_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", here(monkeypatch))
    monkeypatch.setenv("XPO_CACHE", str(tmp_path / "cache"))
    work = Work(prompts=2, samples=2, tokens=4, steps=WARMUP + 1)
    record = run(["rloo"], None, work, 1, tmp_path, tmp_path / "work")
    runs = {one["side"]: one for one in record["cases"][0]["runs"]}
    assert set(runs) == {"trl", "xpo"}
    for one in runs.values():
        assert len(one["ends"]) == len(one["sampling"]) == work.steps
        assert all(2 * 2 <= step["tokens"] <= 2 * 2 * 4 for step in one["sampling"])
        assert all(step["seconds"] > 0 for step in one["sampling"])
    (path,) = tmp_path.glob("rollouts-*.json")
    assert tables(RECORDS.read(path)).count("| TRL |") == 1


def test_a_process_that_fails_is_in_the_record_with_its_reason(tmp_path: Path) -> None:
    side = Side("xpo", "xpo", "xpo", "rloo")
    found = measure(Case("rloo", "", (side,)), side, str(tmp_path), tmp_path / "none.jsonl", Work(), tmp_path / "work")
    assert "no config.json" in found["failed"]
    assert "Traceback" in (tmp_path / "work" / "log.txt").read_text()
