"""One run: train with xpo as a user would, and keep what its record and a look at the model say."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xpo
from benchmarks.testbed.experiments import Side, told
from benchmarks.testbed.forgetting import forgetting
from benchmarks.testbed.online import rewarded
from benchmarks.testbed.ranking import ranking
from xpo.cli import main
from xpo.train.output import HISTORY
from xpo.train.record import RunRecord

Run = dict[str, Any]


def identity(side: Side) -> Run:
    """What a side's runs are, apart from their seeds: sides of two experiments that are the same share their runs."""
    return {"algo": side.algo, "settings": told(side.settings)}


def measure(side: Side, seed: int, work: Path, also: Mapping[str, Any] | None = None) -> Run:
    """Train and look. A run that fails says why in place of its numbers."""
    output = work / "run"
    shutil.rmtree(output, ignore_errors=True)
    settings = {**side.settings, **(also or {}), "seed": seed, "output_dir": str(output)}
    run = {**identity(side), "seed": seed}
    started = time.perf_counter()
    try:
        with (work / "log.txt").open("a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            record = (_command if side.command else _python)(side.algo, settings)
            rows = {
                row.name: {key: _plain(value) for key, value in asdict(row).items() if key in _KEPT}
                for row in record.comparison
            }
            if "judge" in side.settings:
                rows |= rewarded(record.samples)
            run |= {"steps": record.cost.steps, "rows": rows}
            if side.look is not None:
                run[side.look] = _LOOKS[side.look](output)
    except Exception as error:  # whatever it is, the other runs go on and the table shows it
        run["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    finally:
        shutil.rmtree(output, ignore_errors=True)
    return {**run, "seconds": round(time.perf_counter() - started, 1)}


_KEPT = ("before", "after", "interval_before", "interval_after", "interval_change")


def _python(algo: str, settings: Mapping[str, Any]) -> RunRecord:
    return xpo.train(algo, **settings)


def _command(algo: str, settings: Mapping[str, Any]) -> RunRecord:
    words = [
        word
        for key, value in settings.items()
        for word in (f"--{key}", str(value).lower() if value in (True, False) else str(value))
    ]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = main(["train", "--algo", algo, *words])
    if status:
        # The reason stands at the end of what was said, and may name a place on this machine.
        reason = said.getvalue().strip().rpartition("\n")[2].removeprefix("xpo: ")
        for place in (
            str(value) for value in settings.values() if isinstance(value, str) and Path(value).is_absolute()
        ):
            reason = reason.replace(place, Path(place).name)
        raise RuntimeError(f"xpo train ended with status {status}: {reason}")
    return RunRecord.load(settings["output_dir"])


def _ranking(output: Path) -> dict[str, str]:
    """Numbers of 200 lists, each as one line of text, so that a record can be read."""
    return {name: " ".join(f"{value:.3f}" for value in values) for name, values in ranking(output).items()}


def _curve(output: Path) -> list[list[float]]:
    """Steps and held-out accuracy while training."""
    names = ("eval_accuracy", "eval_rewards/accuracies")
    return [[entry["step"], entry[name]] for entry in _history(output) for name in names if name in entry]


def _losses(output: Path) -> list[float | None]:
    """The loss of every step; None where it was not finite."""
    return [entry["loss"] for entry in _history(output) if "loss" in entry]


def _history(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / HISTORY).read_text(encoding="utf-8").splitlines()]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


_LOOKS: Mapping[str, Callable[[Path], Any]] = {
    "ranking": _ranking,
    "forgetting": forgetting,
    "curve": _curve,
    "losses": _losses,
}
