"""All of a measurement: models, rows and plans made ready, sides run in turn, one record."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from benchmarks.records import Record, finish, save
from benchmarks.throughput.cases import CASES, SIDES, Case
from benchmarks.throughput.flops import Shape, shape_of
from benchmarks.throughput.install import install
from benchmarks.throughput.measure import Run, measure, turns
from benchmarks.throughput.model import SIZES, make_model
from benchmarks.throughput.numbers import durations
from benchmarks.throughput.plan import Plan, plan
from benchmarks.throughput.record import begin, place
from benchmarks.throughput.rows import Source, source
from benchmarks.throughput.wanted import Wanted
from xpo.compat import no_bars, quiet
from xpo.errors import SettingError
from xpo.plugins import load
from xpo.testbed import model_path


def run(wanted: Wanted) -> Record:
    """Measure and record. What goes wrong on one side is in the record, and the others go on."""
    quiet()
    no_bars()
    install(wanted.work / "site")
    cases = [CASES[name] for name in wanted.cases if wanted.sides_of(CASES[name])]
    told = {name: getattr(wanted, name) for name in ("steps", "trl_steps", "warmup", "repeats")}
    record = begin(wanted.device, wanted.threads, setup=asdict(wanted.setup()), **told)
    path = place(record, wanted.output)
    sources = dict(_sources(wanted, cases))
    models = dict(_models(wanted, cases, sources))
    record["data"] = {name: found.describe() for name, found in sources.items()}
    record["models"] = {name: _describe(folder, wanted) for name, folder in models.items()}
    # Everything is made ready before anything is measured: what is wrong with a later case must not cost hours.
    plans = []
    for case in cases:
        model = "small" if case.material == "plain" else "made"
        ready = _plan(wanted, case, sources[case.material], models[model])
        shape = shape_of(AutoConfig.from_pretrained(models[model]), wanted.setup().rank if case.lora else None)
        record["cases"].append(_entry(case, model, ready, shape, wanted))
        plans.append((case, ready, models[model], record["cases"][-1]))
    for case, ready, folder, entry in plans:
        for repeat, side in turns(wanted.sides_of(case), wanted.repeats):
            done = _measured(wanted, case, ready, folder, side)
            entry["runs"].append({"repeat": repeat, **done})
            _say(f"{case.name}, {SIDES[side].title}, {repeat + 1} of {wanted.repeats}: {_outcome(done, wanted)}")
            save(record, path)
    finish(record, path)
    _say(f"record: {path}")
    return record


def _plan(wanted: Wanted, case: Case, rows: Source, model: Path) -> Plan:
    return plan(
        case,
        rows,
        AutoTokenizer.from_pretrained(model),
        wanted.work / case.name,
        steps=max(wanted.steps_of(case, side) for side in wanted.sides_of(case)),
        max_length=wanted.max_length,
        seed=wanted.seed,
    )


def _measured(wanted: Wanted, case: Case, ready: Plan, model: Path, side: str) -> Run:
    return measure(
        case,
        ready,
        model,
        wanted.work / case.name,
        wanted.work / "site",
        wanted.setup(case),
        side,
        steps=wanted.steps_of(case, side),
        threads=wanted.threads,
        timeout=wanted.timeout,
    )


def _sources(wanted: Wanted, cases: Sequence[Case]) -> Iterator[tuple[str, Source]]:
    """The material of all cases."""
    given = {"chat": wanted.pairs, "long": wanted.long_pairs, "plain": wanted.plain_pairs}
    rows = 2 * max(case.batch * wanted.steps_of(case, "tree") for case in cases)
    for name in dict.fromkeys(case.material for case in cases):
        yield name, source(name, given[name], max(600, rows))


def _models(wanted: Wanted, cases: Sequence[Case], sources: Mapping[str, Source]) -> Iterator[tuple[str, Path]]:
    """The models of all cases: a large one, made for the material it reads, and a small one that is real."""
    if any(case.material != "plain" for case in cases):
        folder = wanted.work / f"model-{wanted.size}"
        if wanted.model is not None:
            yield "made", _folder(wanted.model, "--model")
        else:
            texts = [row for name, found in sources.items() if name != "plain" for row in found.rows]
            yield "made", make_model(SIZES[wanted.size], texts, folder, wanted.dtype, wanted.device)
    if any(case.material == "plain" for case in cases):
        yield "small", model_path() if wanted.small_model is None else _folder(wanted.small_model, "--small-model")


def _folder(name: str, flag: str) -> Path:
    path = Path(name).resolve()
    if not (path / "tokenizer.json").is_file():
        raise SettingError(
            f"{flag} {name}: there is no model with a tokenizer.json here; give a directory that has both"
        )
    return path


def _describe(folder: Path, wanted: Wanted) -> dict[str, Any]:
    """A model by its sizes, and its tokenizer by its digest: token counts depend on it."""
    config = AutoConfig.from_pretrained(folder)
    made = folder.parent == wanted.work
    embedded = folder == model_path()
    return {
        "name": f"random weights, {wanted.size}" if made else "xpo's testbed model" if embedded else folder.name,
        "parameters": shape_of(config, None).parameters,
        **{name: getattr(config, name, None) for name in ("model_type", "hidden_size", "num_hidden_layers")},
        "vocab_size": config.vocab_size,
        "tokenizer_sha256": hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest(),
    }


def _entry(case: Case, model: str, ready: Plan, shape: Shape, wanted: Wanted) -> dict[str, Any]:
    settings = asdict(case)
    told = (
        "name",
        "title",
        "algorithm",
        "material",
        "batch",
        "lora",
        "learning_rate",
        "schedule",
        "method",
        "hold_out",
    )
    return {
        **{name: settings[name] for name in told},
        "model": model,
        "dtype": wanted.setup(case).dtype,
        "reference": load().algorithm(case.algorithm).cls.needs.reference,
        "sides": {side: asdict(SIDES[side]) for side in wanted.sides_of(case)},
        "shape": asdict(shape),
        **ready.describe(),
        "runs": [],
    }


def _outcome(done: Run, wanted: Wanted) -> str:
    if "failed" in done:
        return f"failed: {done['failed']}"
    timed = durations(done)[wanted.warmup :] or durations(done)
    return f"{median(timed):.3g} s a step, loss {done['losses'][-1]:.4f} at the last"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
