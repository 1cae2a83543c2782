"""All of a measurement: the runs one after the other, each in the record as soon as it ended, and the figure."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import xpo
from benchmarks.frontier.best_of import best_of, kl_bound
from benchmarks.frontier.figure import draw
from benchmarks.frontier.look import Seen, drawn, look, model, rewards_of
from benchmarks.frontier.methods import BEST_OF, SWEEPS, Work
from benchmarks.frontier.record import RECORDS, begin, resumed
from benchmarks.records import Record, find, finish, save
from xpo.compat import no_bars, quiet
from xpo.testbed import model_path
from xpo.train.intervals import Estimate, mean_interval

Identity = dict[str, Any]


def run(
    methods: Sequence[str],
    seeds: Sequence[int],
    output: Path,
    folder: Path,
    resume: Path | None = None,
    work: Work | None = None,
) -> tuple[Record, Path]:
    """Measure and record.

    Args:
        methods: names of sweeps, or of best-of-n.
        seeds: of training and of the samples looked at; all methods have their first before any has its second.
        output: folder for a new record.
        folder: folder for models and logs.
        resume: record to go on with; runs that did not fail are not done again.
    """
    quiet()
    no_bars()
    os.environ["XPO_CACHE"] = os.environ.get("XPO_CACHE") or str(folder / "cache")
    work = work or Work()
    record = begin(work) if resume is None else resumed(resume, work)
    path = RECORDS.place(record, output) if resume is None else resume
    todo = list(identities(methods, seeds))
    for number, wanted in enumerate(todo, 1):
        known = find(record, wanted)
        if known is not None and "failed" not in known:
            continue
        done = measure(wanted, work, folder)
        record["runs"] = [one for one in record["runs"] if one is not known] + [done]
        save(record, path)
        _say(f"{number} of {len(todo)}: {_named(wanted)}, {done['seconds']} s{_outcome(done)}")
    finish(record, path)
    draw(record, path.with_suffix(".svg"))
    _say(f"record: {path}, figure: {path.with_suffix('.svg').name}")
    return record, path


def identities(methods: Sequence[str], seeds: Sequence[int]) -> Iterator[Identity]:
    """What is to be run, seed by seed."""
    for seed in seeds:
        for name in methods:
            if name == BEST_OF:
                yield {"method": name, "setting": {}, "seed": seed}
            else:
                sweep = SWEEPS[name]
                yield from ({"method": name, "setting": {sweep.setting: one}, "seed": seed} for one in sweep.values)


def measure(wanted: Identity, work: Work, folder: Path) -> Record:
    """One run. If it fails it says why in place of its points."""
    started = time.perf_counter()
    found: Callable[[Identity, Work, Path], list[Record]] = _chosen if wanted["method"] == BEST_OF else _trained
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / "log.txt").open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            result: Record = {"points": found(wanted, work, folder)}
    except Exception as error:  # whatever it is, the other runs go on and the table shows it
        result = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}
    return {**wanted, **result, "seconds": round(time.perf_counter() - started, 1)}


def _trained(wanted: Identity, work: Work, folder: Path) -> list[Record]:
    """Train, and look at the checkpoints."""
    output, every = folder / "run", work.steps // work.looks
    shutil.rmtree(output, ignore_errors=True)
    try:
        # The looks are this benchmark's own, the same along training as at its end.
        xpo.train(
            SWEEPS[wanted["method"]].algo,
            seed=wanted["seed"],
            max_steps=work.steps,
            save_strategy="steps",
            save_steps=every,
            save_only_model=True,
            eval_prompts=0,
            output_dir=str(output),
            **{**wanted["setting"], **work.also},
        )
        steps = [every * number for number in range(1, work.looks + 1)]
        return [
            {"step": step, **_point(look(output / f"checkpoint-{step}", work.prompts, work.samples, wanted["seed"]))}
            for step in steps
        ]
    finally:
        shutil.rmtree(output, ignore_errors=True)


def _point(seen: Seen) -> Record:
    return {
        "reward": _estimate(mean_interval(seen.rewards)),
        "kl": _estimate(mean_interval(seen.kl)),
        "tokens": round(mean_interval(seen.tokens).value, 2),
    }


def _chosen(wanted: Identity, work: Work, folder: Path) -> list[Record]:
    """Sample from the start and choose; of one, the start itself."""
    groups = drawn(model(model_path()), work.prompts, work.pool, wanted["seed"], "best of n")
    rewards = rewards_of(groups)
    return [
        {
            "n": n,
            "reward": _estimate(mean_interval([best_of(some, n) for some in rewards])),
            "kl": {"value": round(kl_bound(n), 4), "bound": True},
        }
        for n in (1, *work.sizes)
    ]


def _estimate(found: Estimate) -> Record:
    value, low, high = (round(one, 4) for one in found)
    return {"value": value, "low": low, "high": high}


def _named(wanted: Mapping[str, Any]) -> str:
    return ", ".join([wanted["method"], *(f"{k} {v}" for k, v in wanted["setting"].items()), f"seed {wanted['seed']}"])


def _outcome(done: Mapping[str, Any]) -> str:
    if "failed" in done:
        return f", failed: {done['failed']}"
    last = done["points"][-1]
    return f", reward {last['reward']['value']:.2f} at {last['kl']['value']:.2f} nats"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
