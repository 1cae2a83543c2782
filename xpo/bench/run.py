"""Run what is missing of a suite, and write its records, tables and page."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from xpo.bench import directory, store
from xpo.bench.cell import Cell
from xpo.bench.executor import Ended, Executor, Job, LocalExecutor
from xpo.bench.failure import failure, shown
from xpo.bench.live import Progress
from xpo.bench.page.document import page
from xpo.bench.reading import Told
from xpo.bench.records import collect
from xpo.bench.settings import run_settings
from xpo.bench.suite import Suite, plan
from xpo.bench.summary import Summary, summarise
from xpo.bench.table import comma_separated, latex, markdown
from xpo.errors import SettingError, XpoError
from xpo.plugins import Registry
from xpo.train.progress import say

#: Seconds between two looks at the processes, and at least between two tables while they run: one of hundreds of
#: cells takes seconds.
_LOOK, _DRAW = 1.0, 30.0
#: What a cell that is done took, by the names in its record.
_TIMES = ("training_seconds", "examining_seconds")


def run(told: Told, registry: Registry, executor: Executor | None = None) -> Summary:
    """Run the cells that have no result yet, and draw the table.

    Args:
        executor: where cells run, in place of what the options say.

    Raises:
        XpoError: the suite cannot be run as it was asked for; nothing has been written.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingError("xpo bench is one process that starts others; start it without a launcher")
    suite = plan(told, registry)
    path = Path(suite.options.output_dir)
    directory.check_directory(path)
    data = _check_data(suite, registry)
    body = store.describe(suite, data)
    _agrees(path, body)
    where = executor
    if where is None and suite.options.executor == "ray":
        where = _ray(suite)
    with directory.usable(path), directory.locked(path) as lock:
        store.sweep(path)
        where = where or LocalExecutor(suite.options.jobs, _devices(suite.options.jobs), lock)
        try:
            # Once more: another process may have begun one. A start without a suite may be that of another suite.
            if not _agrees(path, body):
                shutil.rmtree(path / store.START, ignore_errors=True)
            _start(suite, path, data, where)
            store.write_json(path / store.SUITE, body)
            for note in suite.notes:
                say(note)
            _cells(suite, path, data, where)
        finally:
            where.stop()
            if (path / store.SUITE).exists():
                write_outputs(path)
    return summarise(collect(path))


def _agrees(path: Path, body: store.Body) -> bool:
    """Whether a directory holds a suite, which must be the same one."""
    old = store.read_suite(path)
    if old is not None:
        store.check_same(old, body, path)
    return old is not None


def write_outputs(path: Path) -> Summary:
    """Write ``records.json``, the tables and the page of a directory, from what its cells left."""
    from xpo.train.output import write_text

    records = collect(path)
    summary = summarise(records)
    store.write_json(path / store.RECORDS, {**records, "table": summary.to_dict()})
    write_text(path / "table.md", markdown(summary, records))
    write_text(path / "table.csv", comma_separated(summary))
    write_text(path / "table.tex", latex(summary, records))
    write_text(path / "report.html", page(summary, records))
    return summary


def _check_data(suite: Suite, registry: Registry) -> str:
    """Read the data and hold every method against it; its fingerprint."""
    from xpo.bench.data import check_method, sources

    first = suite.cells[0]
    found = sources(_settings(suite, first), registry)
    for method, algo in suite.methods.items():
        cell = next(cell for cell in suite.cells if cell.method == method)
        samples = _settings(suite, cell).rollout is not None
        check_method(method, registry.algorithm(algo).cls, samples, found)
    return found.fingerprint


def _settings(suite: Suite, cell: Cell) -> Any:
    return run_settings(cell.algo, cell.settings, output_dir=f"{suite.options.output_dir}/check")


def _start(suite: Suite, path: Path, data: str, where: Executor) -> None:
    """Examine the start, once.

    Raises:
        SettingError: that failed, and so would every cell.
    """
    if store.start_of(path) is not None:
        return
    say("examining the start")
    folder = path / store.START
    first = suite.cells[0]
    job = store.begin(
        folder, {"shared": suite.shared, "data": data, "algo": first.algo, "settings": _base(first.settings)}
    )
    where.start(_process(store.START, job))
    ended: list[Ended] = []
    while not ended:
        ended = where.ended(_LOOK)
    if store.start_of(path) is None:
        why = shown(failure(folder / store.LOG, ended[0].status))
        tail = (folder / store.LOG).read_text(encoding="utf-8", errors="replace")
        shutil.rmtree(folder)
        if ended[0].status != 2:  # not one of our own messages: the whole story is wanted
            print(tail, file=sys.stderr)
        raise SettingError(f"the start cannot be examined: {why}")


def _base(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings to load the start by: without those that make it something to train."""
    return {name: value for name, value in settings.items() if not name.startswith("lora_") and name != "use_peft"}


def _cells(suite: Suite, path: Path, data: str, where: Executor) -> None:
    """Run what is missing."""
    known, took = {}, {}
    for cell in suite.cells:
        result = store.result_of(path, cell)
        if result is not None and not ("failed" in result and suite.options.retry_failed):
            known[cell.place] = "failed" if "failed" in result else "done"
            took[cell.place] = sum(result.get("cost", {}).get(name, 0.0) for name in _TIMES)
    todo = [cell for cell in suite.cells if cell.place not in known]
    if known:
        say(f"{len(known)} of {len(suite.cells)} cells are there already; {len(todo)} to run")
    running: dict[str, Cell] = {}
    drawn = -math.inf
    with Progress(suite.cells, known, where.slots, took=took) as progress:
        while todo or running:
            while todo and len(running) < where.slots:
                cell = todo.pop(0)
                job = _job(suite, cell, data, path)
                running[cell.place] = cell
                progress.started(cell)
                where.start(_process(cell.place, store.begin(path / cell.place, job)))
            for ended in where.ended(_LOOK):
                cell = running.pop(ended.key)
                _settle(path, cell, ended, progress)
                if time.monotonic() - drawn > _DRAW:
                    with suppress(XpoError):  # an early table is a kindness; the last one says what is wrong with it
                        write_outputs(path)
                    drawn = time.monotonic()


def _settle(path: Path, cell: Cell, ended: Ended, progress: Progress) -> None:
    """Take note of how a cell ended."""
    # The result is the last thing that is written: what becomes of the process afterwards takes nothing from it.
    if store.result_of(path, cell) is not None:
        progress.ended(cell, ended.seconds, "done")
    else:
        found = failure(path / cell.place / store.LOG, ended.status)
        store.fail(path / cell.place, found)
        progress.ended(cell, ended.seconds, "failed", shown(found))


def _job(suite: Suite, cell: Cell, data: str, path: Path) -> dict[str, Any]:
    return {
        **cell.to_dict(),
        "shared": suite.shared,
        "data": data,
        "start": str((path / store.START).resolve()),
        "keep_models": suite.options.keep_models,
    }


def _process(key: str, job: Path) -> Job:
    job = job.resolve()
    argv = [sys.executable, "-m", "xpo.bench.worker", str(job)]
    return Job(key, argv, Path.cwd(), job.parent / store.LOG)


def _ray(suite: Suite) -> Executor:
    from xpo.bench.ray_executor import RayExecutor

    return RayExecutor(suite.options.jobs, suite.options.address, suite.options.gpus_per_cell)


def _devices(jobs: int) -> Sequence[str]:
    """GPUs to deal out, where there are several of them and several jobs."""
    import torch

    count = torch.cuda.device_count()
    return [str(number) for number in range(count)] if jobs > 1 and count > 1 else ()
