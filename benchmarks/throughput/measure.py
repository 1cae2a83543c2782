"""Run the sides of a case in turn, each in a fresh process, and keep what each was or why it failed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.throughput.cases import SIDES, Case
from benchmarks.throughput.job import Job, Setup
from benchmarks.throughput.plan import Plan

ROOT = Path(__file__).resolve().parents[2]
#: Where a case keeps its reference cache.
CACHE = "cache"
Run = dict[str, Any]


def turns(sides: Sequence[str], repeats: int) -> Iterator[tuple[int, str]]:
    """(repeat, side): every repeat begins with another side, so that none is always first on a cold machine.

    The cache is filled once, before the first run that reads it.
    """
    for repeat in range(repeats):
        shift = repeat % len(sides)
        for side in (*sides[shift:], *sides[:shift]):
            if side == "warm" and repeat == 0:
                yield 0, "cold"
            yield repeat, side


def measure(
    case: Case,
    plan: Plan,
    model: Path,
    folder: Path,
    site: Path,
    setup: Setup,
    side: str,
    *,
    steps: int,
    threads: int | None,
    timeout: float,
) -> Run:
    """One run of a case by one side: its numbers, or ``failed`` with the reason."""
    chosen = SIDES[side]
    job = Job(
        library=chosen.library,
        algorithm=case.algorithm,
        model=str(model),
        rows=plan.rows,
        output=str(folder / side),
        result=str(folder / f"{side}.json"),
        setup=setup,
        side=chosen.settings,
        method=case.method,
        batch=case.batch,
        steps=None if case.hold_out else steps,
        lora=case.lora,
        learning_rate=case.learning_rate,
        schedule=case.schedule,
        cached=chosen.cached,
        held_out=plan.held_out,
    )
    job.save(folder / f"{side}-job.json")
    result = Path(job.result)
    result.unlink(missing_ok=True)
    if side == "cold":
        shutil.rmtree(folder / CACHE, ignore_errors=True)
    started = time.perf_counter()
    reason = _run(folder / f"{side}-job.json", folder, _environment(folder, site, threads, setup), timeout)
    if reason is None and not result.is_file():
        reason = "the process ended without a result"
    if reason is not None:
        return {"side": side, "failed": _without_paths(reason, folder)}
    found = {"side": side, "seconds": time.perf_counter() - started, **json.loads(result.read_text(encoding="utf-8"))}
    planned = plan.work if case.hold_out else plan.work[:steps]
    if len(found["ends"]) != len(planned) or len(found["losses"]) != len(planned):
        return {"side": side, "failed": f"took {len(found['ends'])} steps in place of {len(planned)}"}
    # Each library counts in its own way; both must have seen the rows as they were meant to be seen.
    expected = sum(step.sequences if chosen.library == "trl" else step.tokens for step in planned)
    return {**found, "tokens_expected": expected}


def _run(job: Path, folder: Path, environment: Mapping[str, str], timeout: float) -> str | None:
    """Run a job; why it failed, or None."""
    words = [sys.executable, "-m", "benchmarks.throughput.worker", str(job)]
    with open(job.with_suffix(".log"), "w", encoding="utf-8") as log:
        try:
            done = subprocess.run(
                words, cwd=folder, env=environment, stdout=log, stderr=log, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired:
            return f"stopped after {timeout:.0f} s"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"ended by {signal.Signals(-done.returncode).name}, which may be for want of memory"
    lines = [line for line in job.with_suffix(".log").read_text(encoding="utf-8").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return re.sub(r"^[\w.]*\.(?=\w+:)", "", (errors or lines or ["no message"])[-1])[:300]


def _environment(folder: Path, site: Path, threads: int | None, setup: Setup) -> dict[str, str]:
    """Of all runs alike; ``site`` holds the package of the listwise method."""
    path = [str(site), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "XPO_CACHE": str(folder / CACHE),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
    }
    if threads is not None:
        environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if setup.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


def _without_paths(reason: str, folder: Path) -> str:
    """A reason goes into a record that others read: it does not say where this machine keeps its files."""
    for place, name in ((folder, "WORK"), (ROOT, "ROOT"), (Path(sys.prefix), "ENV"), (Path.home(), "HOME")):
        if place != Path(place.anchor):
            reason = reason.replace(str(place), name)
    return reason
