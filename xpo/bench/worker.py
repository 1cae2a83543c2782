"""One cell, in a process of its own: ``python -m xpo.bench.worker JOB.json`` trains, examines and writes one file.

A job without a cell examines the start. The result is written whole or not at all, as the last thing; why there is
none, the log says.
"""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from xpo.bench.executor import PARENT
from xpo.compat import quiet
from xpo.errors import DataError, ModelError, XpoError

#: Seconds between two looks whether whoever started this process is still there.
_WATCH = 0.5
RESULT, RUN_FOLDER = "result.json", "run"


def main(argv: Sequence[str]) -> int:
    """Do the job of a file; the exit status."""
    _end_with(os.environ.get(PARENT))
    quiet()
    path = Path(argv[0])
    job = json.loads(path.read_text(encoding="utf-8"))
    try:
        result = work(job, path.parent)
        from xpo.train.output import write_text

        write_text(path.parent / RESULT, json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")
    except XpoError as error:
        print(f"xpo: {error}", file=sys.stderr)
        return 2
    return 0


def work(job: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The result of a job.

    Args:
        job: ``shared`` conditions of the suite; ``algo`` and ``settings`` of the cell, or those to load the start by;
            and for a cell its ``seed``, ``method``, ``point`` and the folder of the ``start``.
        folder: of the cell.

    Raises:
        XpoError: it cannot be done, or model or data are no longer what they were when the suite began.
    """
    from xpo.bench.settings import run_settings
    from xpo.compat import no_bars
    from xpo.models.load import load_tokenizer
    from xpo.plugins import load
    from xpo.train.networks import model_config

    no_bars()
    registry, shared = load(), job["shared"]
    from xpo.bench import data, exam, judging, measuring
    from xpo.bench.evaluators import choose

    output = folder / RUN_FOLDER
    more = {"seed": job["seed"]} if "seed" in job else {}
    settings = run_settings(job["algo"], job["settings"], output_dir=str(output), **more)
    found = data.sources(settings, registry)
    if found.fingerprint != job["data"]:
        raise DataError("the data is no longer what it was when the suite began; begin another one")
    config = model_config(settings)
    tokenizer = load_tokenizer(config, settings.run.chat_template_path)
    parts = data.parts(found, settings, tokenizer, shared)
    device = settings.training.device
    chosen = choose(shared.get("evaluators") or [], registry)
    if "seed" not in job:
        model, digest = _start(config, device)
        seen = exam.look(
            model,
            tokenizer,
            parts,
            judging.feedback_of(shared, config, registry, model, tokenizer),
            shared["eval_tokens"],
        )
        examined = exam.of_start(seen, tokenizer)
        test = parts["test"].compared, seen.views["test"]
        examined["test"]["measured"] = measuring.measure(chosen, model, tokenizer, *test, device)
        return {
            "model": digest,
            "data": found.fingerprint,
            "evaluators": [one.to_dict() for one in chosen],
            "examined": examined,
            "notes": list(parts["test"].told),
            **_machine(device),
        }

    start = json.loads((folder / job["start"] / RESULT).read_text(encoding="utf-8"))
    _same_start(config, "cpu", start)  # before hours are spent on another one
    begun = time.perf_counter()
    record = _train(job, settings, found)
    trained = time.perf_counter()
    gc.collect()
    model = _same_start(config, device, start)
    feedback = judging.feedback_of(shared, config, registry, model, tokenizer)
    policy = _trained(config, output, device)
    seen = exam.look(policy, tokenizer, parts, feedback, shared["eval_tokens"])
    under = {name: exam.logps(model, tokenizer, view.groups) for name, view in seen.views.items()}
    examined = exam.of_trained(seen, start["examined"], under, parts, feedback.judge)
    _finite(examined)
    test = parts["test"].compared, seen.views["test"]
    measured = measuring.measure(chosen, policy, tokenizer, *test, device)
    measuring.check_same(chosen, measured, start)
    examined["test"]["measured"] = measured
    for name in ("run.json", "history.jsonl"):
        shutil.copyfile(output / name, folder / name)
    if not job["keep_models"]:
        shutil.rmtree(output)
    cost = {name: value for name, value in asdict(record.cost).items() if name not in ("steps", "tokens")}
    return {
        "steps": record.cost.steps,
        "tokens": record.cost.tokens,
        "parameters": record.model["parameters"],
        "trainable": record.model["trainable"],
        "metrics": {name: value for name, value in record.metrics.items() if value is None or math.isfinite(value)},
        "notes": record.notes,
        "supplier": record.supplier,
        "examined": examined,
        "cost": {**cost, "training_seconds": trained - begun, "examining_seconds": time.perf_counter() - trained},
        "git": record.git,
        **_machine(device),
    }


def _train(job: Mapping[str, Any], settings: Any, found: Any) -> Any:
    """Train; the record of the run."""
    from xpo.bench.budget import Spend
    from xpo.bench.data import Sources
    from xpo.train.run import execute

    assert isinstance(found, Sources)
    if not isinstance(found.train, str):
        # The rows themselves, without those that are held out; they are the same for every seed and every method.
        run = replace(settings.run, eval_dataset=None, eval_size=None)
        settings = replace(settings, run=run, objects={**settings.objects, "dataset_name": found.train})
    tokens = job["shared"]["budget_tokens"]
    return execute(settings, [] if tokens is None else [lambda trainer: Spend(trainer, tokens)])


def _finite(examined: Mapping[str, Any]) -> None:
    for numbers in examined.values():
        for name, values in numbers.items():
            if isinstance(values, list) and any(isinstance(one, float) and not math.isfinite(one) for one in values):
                raise ModelError(f"the trained model gives {name} that are not finite numbers: training has diverged")


def _start(config: Any, device: Any) -> tuple[Any, str]:
    """The start model, frozen, and its fingerprint."""
    from xpo.models.fingerprint import fingerprint
    from xpo.models.load import load_policy

    model = load_policy(config, training=False).model.eval().requires_grad_(False)
    return _moved(model, config, device), fingerprint(model)


def _same_start(config: Any, device: Any, start: Mapping[str, Any]) -> Any:
    """The start model, which must be the one that was examined."""
    model, digest = _start(config, device)
    if digest != start["model"]:
        raise ModelError("the start model is no longer what it was when the suite began; begin another suite")
    return model


def _trained(config: Any, output: Path, device: Any) -> Any:
    from xpo.models.load import load_policy

    saved = replace(config, model_name_or_path=str(output), model_revision="main")
    model = load_policy(saved, training=False).model.eval().requires_grad_(False)
    return _moved(model, config, device)


def _moved(model: Any, config: Any, device: Any) -> Any:
    # Quantised weights are put where they belong when they are loaded.
    return model if config.load_in_4bit or config.load_in_8bit else model.to(device)


def _machine(device: Any) -> dict[str, Any]:
    import xpo
    from xpo.train.machine import device as about
    from xpo.train.machine import versions

    return {"xpo_version": xpo.__version__, "versions": versions(), "device": about(str(device.type))}


def _end_with(parent: str | None) -> None:
    """End this process when the one that started it is gone: nobody would read what it writes, or two would write."""
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(_WATCH)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
