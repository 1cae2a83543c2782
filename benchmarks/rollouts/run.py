"""All of a measurement: prompts made ready, sides in turn, each run in a process of its own, one record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoTokenizer

from benchmarks.records import Record, finish, save
from benchmarks.rollouts.cases import CASES, Case, Side
from benchmarks.rollouts.job import Job, Work
from benchmarks.rollouts.record import RECORDS
from benchmarks.throughput.numbers import durations
from xpo.errors import SettingError
from xpo.testbed import model_path, rows
from xpo.train.machine import device

ROOT = Path(__file__).resolve().parents[2]


def run(names: Iterable[str], model: str | None, work: Work, repeats: int, output: Path, folder: Path) -> Record:
    """Measure and record. What goes wrong on one side is in the record, and the others go on.

    Args:
        names: the cases.
        model: directory of the model; the testbed's if None.
        repeats: runs of each side, the sides in turn.
        output: folder for the record.
        folder: folder for what the runs write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place_of = str(model_path()) if model is None else str(Path(model).resolve())
    if not (Path(place_of) / "config.json").is_file():
        raise SettingError(f"--model {model}: there is no model here; give a directory with config.json")
    prompts = write_prompts(place_of, work, folder / "prompts.jsonl")
    told = {"model": "xpo's testbed model" if model is None else Path(place_of).name, "work": asdict(work)}
    machine = {**device(), "threads": torch.get_num_threads()}
    record = RECORDS.begin(machine, **told, repeats=repeats, cases=[])
    path = RECORDS.place(record, output)
    for name in names:
        case = CASES[name]
        record["cases"].append({**asdict(case), "runs": []})
        for repeat in range(repeats):
            for side in case.sides:
                done = measure(case, side, place_of, prompts, work, folder / f"{name}-{side.name}-{repeat}")
                record["cases"][-1]["runs"].append({"side": side.name, "repeat": repeat, **done})
                save(record, path)
                print(f"{name}, {side.title}, {repeat + 1} of {repeats}: {_outcome(done)}", file=sys.stderr, flush=True)
    finish(record, path)
    print(f"record: {path}", file=sys.stderr)
    return record


def write_prompts(model: str, work: Work, path: Path) -> Path:
    """The testbed's prompts, as conversations where the tokenizer of the model has a template for them."""
    chat = AutoTokenizer.from_pretrained(model).chat_template is not None
    found = [row["prompt"] for row in rows("prompts", "train")]
    needed = [found[number % len(found)] for number in range(work.prompts * work.steps)]
    prompts = [one if chat else one[-1]["content"] for one in needed]
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    return path


def measure(case: Case, side: Side, model: str, prompts: Path, work: Work, folder: Path) -> dict[str, Any]:
    """One run in a fresh process: its numbers, or why there are none."""
    folder.mkdir(parents=True, exist_ok=True)
    result, told = folder / "result.json", folder / "job.json"
    Job(
        side.library,
        side.algorithm,
        side.settings,
        model,
        str(prompts),
        str(folder / "output"),
        str(result),
        work,
    ).save(told)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "XPO_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rollouts.worker", str(told)],
        capture_output=True,
        text=True,
        env=surroundings,
    )
    (folder / "log.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode or not result.is_file():
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found


def _outcome(done: Mapping[str, Any]) -> str:
    return f"failed: {done['failed']}" if "failed" in done else f"{median(durations(done)[1:]):.3g} s a step"
