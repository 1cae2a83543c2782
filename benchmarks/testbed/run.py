"""All of a measurement: the runs of the experiments one after the other, each in the record as soon as it ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.records import Record, find, finish, save
from benchmarks.testbed.ceiling import ceiling
from benchmarks.testbed.experiments import Experiment
from benchmarks.testbed.measure import identity, measure
from benchmarks.testbed.record import RECORDS
from xpo.compat import no_bars, quiet
from xpo.plugins import load
from xpo.train.machine import device


def run(
    wanted: Mapping[str, Experiment],
    seeds: Sequence[int],
    output: Path,
    work: Path,
    resume: Path | None = None,
    also: Mapping[str, Any] | None = None,
) -> tuple[Record, Path]:
    """Measure and record.

    Args:
        wanted: the experiments by name. A run that two of them share is done once.
        seeds: of training; the first of all experiments comes before the second of any, so that a table is there soon.
        output: folder for a new record.
        work: folder for models and logs.
        resume: record to go on with; runs that did not fail are not done again.
        also: settings for every run, to try the program out.
    """
    quiet()
    no_bars()
    os.environ["XPO_CACHE"] = os.environ.get("XPO_CACHE") or str(work / "cache")
    machine = {**device(), "threads": torch.get_num_threads()}
    record = RECORDS.begin(machine, experiments={}, runs=[]) if resume is None else RECORDS.read(resume)
    path = RECORDS.place(record, output) if resume is None else resume
    describe(record, wanted)
    todo = [(seed, name, side) for seed in seeds for name, one in wanted.items() for side in one.sides]
    for number, (seed, name, side) in enumerate(todo, 1):
        known = find(record, {**identity(side), "seed": seed})
        if known is not None and "failed" not in known:
            continue
        done = measure(side, seed, work, also)
        record["runs"] = [one for one in record["runs"] if one is not known] + [done]
        save(record, path)
        _say(f"{number} of {len(todo)}: {name}, {side.title}, seed {seed}, {done['seconds']} s{_outcome(done)}")
    finish(record, path)
    _say(f"record: {path}")
    return record, path


def describe(record: Record, wanted: Mapping[str, Experiment]) -> None:
    """Put into the record which runs make up which experiment, beside those of an earlier time."""
    registry = load()
    for name, one in wanted.items():
        known = record.setdefault("experiments", {}).setdefault(name, {"sides": []})
        sides = []
        for side in one.sides:
            cls = registry.algorithm(side.algo).cls
            about = {"title": side.title, **identity(side), "data": cls.data}
            sides.append({**about, "ceiling": ceiling(cls.data)} if side.look == "curve" else about)
        new = {side["title"] for side in sides}
        kept = [side for side in known["sides"] if side["title"] not in new]
        known |= {"title": one.title, "claim": one.claim, "sides": [*kept, *sides]}


def _outcome(done: Mapping[str, Any]) -> str:
    if "failed" in done:
        return f", failed: {done['failed']}"
    rows = done["rows"]
    named = [name for name in ("mean reward", "accuracy", "rewards/accuracies") if name in rows]
    return "".join(f", {name} {rows[name]['before']:.3f} to {rows[name]['after']:.3f}" for name in named)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
