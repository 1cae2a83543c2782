"""``python -m benchmarks.rollouts.networks``: RLOO and the networks of PPO side by side, in memory and in time.

Every side is a fresh process that trains the same random Llama on the same prompts, with the same reward model: as a
model of its own, or as the adapter it was trained as. ``table RECORD...`` writes the tables of records.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.records import RESULTS, Record, Records, finish, save

RECORDS = Records("networks")
ROOT = Path(__file__).resolve().parents[2]
#: Parameters of random Llamas; weights must weigh more than libraries and activations for memory to say anything.
SIZES: Mapping[str, tuple[int, int, int]] = {  # hidden size, layers, inner size; 16 000 tokens
    "tiny": (64, 2, 172),
    "40m": (512, 10, 1376),
    "160m": (1024, 11, 2816),
    "300m": (1280, 14, 3520),
}
LORA: Mapping[str, Any] = {"use_peft": True, "lora_r": 16, "lora_target_modules": ["all-linear"]}
QUIET: Mapping[str, Any] = {
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "overwrite": True,
    "eval_prompts": 0,
}
#: Side -> title, method, settings; BASE, ADAPTER and MERGED are directories: the model and the two forms of the reward.
SIDES: Mapping[str, tuple[str, str, Mapping[str, Any]]] = {
    "rloo": ("RLOO, trained in full", "rloo", {"reward": ["MERGED"]}),
    "ppo": ("PPO, trained in full, four models", "ppo", {"reward": ["MERGED"]}),
    "shared": ("PPO, LoRA, four networks on one backbone", "ppo", {"reward": ["ADAPTER"], **LORA}),
    "separate": (
        "PPO, LoRA, four models",
        "ppo",
        {"reward": ["MERGED"], "reference_model": "BASE", "value_model": "MERGED", **LORA},
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["worker"]:
        _work(Path(words[1]))
        return 0
    if words[:1] == ["table"]:
        print("\n".join("\n".join(table(RECORDS.read(Path(name)))) for name in words[1:]))
        return 0
    args = _parser().parse_args(words)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(args.work or temporary).resolve()
        work.mkdir(parents=True, exist_ok=True)
        record = run(work, args)
    print("\n".join(table(record)))
    return 0


def run(work: Path, args: argparse.Namespace) -> Record:
    """Make the models, train every side in turn, and record. A side that fails says why."""
    from xpo.train.machine import device

    options = ("size", "prompts", "samples", "tokens", "steps", "repeats")
    record = RECORDS.begin(
        {**device("cpu"), "threads": args.threads},
        settings={name: getattr(args, name) for name in options},
        sides={side: {"title": SIDES[side][0], "algo": SIDES[side][1]} for side in args.sides},
        runs=[],
    )
    path = RECORDS.place(record, args.output)
    places, record["parameters"] = _prepare(work, args)
    for repeat in range(args.repeats):
        shift = repeat % len(args.sides)  # none is always first on a cold machine
        for side in (*args.sides[shift:], *args.sides[:shift]):
            record["runs"].append({"repeat": repeat, "side": side, **_measure(side, places, work, args)})
            print(f"{side}: {record['runs'][-1]}", file=sys.stderr, flush=True)
            save(record, path)
    finish(record, path)
    print(f"record: {path}", file=sys.stderr)
    return record


def _prepare(work: Path, args: argparse.Namespace) -> tuple[dict[str, str], int]:
    """The model, prompts, and a reward model trained for two steps, as an adapter and merged into its base."""
    import xpo
    from benchmarks.throughput.model import Size, make_model
    from benchmarks.throughput.rows import made_up
    from xpo.models.load import load_classifier, parameter_counts
    from xpo.models.zero import Zero
    from xpo.train.settings import ModelSettings

    def said(row: Mapping[str, Any], name: str) -> str:
        return " ".join(row[name][0]["content"].split()[:24]) + " "

    pairs = [{name: said(row, name) for name in row} for row in made_up("chat", max(400, args.prompts * args.steps))]
    hidden, layers, inner = SIZES[args.size]
    size = Size(hidden=hidden, layers=layers, heads=hidden // 64, keys=hidden // 64, inner=inner, vocabulary=16_000)
    base, adapter, merged = work / "base", work / "adapter", work / "merged"
    make_model(size, pairs, base, "float32", "cpu")
    (work / "prompts.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in pairs))
    few: dict[str, Any] = {"max_steps": 2, "per_device_train_batch_size": 2}
    with (work / "reward.log").open("w") as log, redirect_stdout(log), redirect_stderr(log):
        xpo.train("bradley_terry", str(base), pairs[:16], output_dir=str(adapter), **QUIET, **few, **LORA)
    model, tokenizer = load_classifier(str(adapter), ModelSettings())
    model.save_pretrained(merged)
    tokenizer.save_pretrained(merged)
    zero = Zero.beside(str(adapter))
    if zero is not None:
        zero.save(merged)
    places = {"BASE": str(base), "ADAPTER": str(adapter), "MERGED": str(merged), "ROWS": str(work / "prompts.jsonl")}
    return places, parameter_counts(model)[0]


def _measure(side: str, places: Mapping[str, str], work: Path, args: argparse.Namespace) -> Record:
    def found(value: Any) -> Any:
        return [found(one) for one in value] if isinstance(value, list) else places.get(str(value), value)

    _, algo, settings = SIDES[side]
    result = work / f"{side}.json"
    result.unlink(missing_ok=True)
    job = {
        "algo": algo,
        "model": places["BASE"],
        "dataset": places["ROWS"],
        "result": str(result),
        "settings": {
            **{name: found(value) for name, value in settings.items()},
            **QUIET,
            "num_generations": args.samples,
            "max_completion_length": args.tokens,
            "max_steps": args.steps,
            "per_device_train_batch_size": args.prompts,
            "logging_steps": 1,
            "reference_cache": "off",
            "sample_completions": 0,
            "output_dir": str(work / side),
        },
    }
    (work / f"{side}-job.json").write_text(json.dumps(job))
    threads = str(args.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    words = [sys.executable, "-m", __spec__.name, "worker", str(work / f"{side}-job.json")]
    with open(work / f"{side}.log", "w", encoding="utf-8") as log:
        done = subprocess.run(words, cwd=work, env=environment, stdout=log, stderr=log, check=False)
    if done.returncode or not result.is_file():
        lines = (work / f"{side}.log").read_text("utf-8").strip().splitlines() or ["no message"]
        return {"failed": lines[-1].replace(str(work), "WORK")[:300]}
    measured: Record = json.loads(result.read_text("utf-8"))
    return measured


def _work(path: Path) -> None:
    """A measured process: train, and write down what was held and how long it took."""
    job = json.loads(path.read_text(encoding="utf-8"))
    import torch

    import xpo
    from benchmarks.throughput.machine import host_peak
    from benchmarks.throughput.stamps import Stamps

    weights: dict[str, int] = {}

    class Weigh(Stamps):
        def on_train_begin(self, *arguments: Any, **keywords: Any) -> None:
            every = [one for one in gc.get_objects() if type(one) is torch.nn.Parameter]
            stored = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in every}
            weights["weights"] = sum(stored.values())
            super().on_train_begin(*arguments, **keywords)

    stamps, libraries = Weigh.install(), host_peak()
    cost = xpo.train(job["algo"], job["model"], job["dataset"], **job["settings"]).cost
    result = {**stamps.result(), **weights, "libraries": libraries, "sampling": cost.sampling}
    Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


def newest(folder: Path = RESULTS) -> str:
    """The table of the newest record of a folder."""
    records = list(RECORDS.everything(folder).values())
    return "\n".join(table(records[-1])) if records else "Nothing has been measured yet.\n"


def table(record: Mapping[str, Any]) -> Iterator[str]:
    """Markdown of a record: every side, and the ratios that are claimed."""
    settings, machine = record["settings"], record["machine"]
    yield (
        f"{record['started'][:10]}, {machine['name']}, {machine['threads']} threads; random Llama, float32, "
        f"{record['parameters'] / 1e6:.0f} M parameters; {settings['prompts']} prompts x {settings['samples']} samples "
        f"of at most {settings['tokens']} tokens a step, {settings['steps']} steps, the first not timed."
        + ("" if record["finished"] else " This record is not finished.")
    )
    yield ""
    yield "| | weights, GB | peak memory, GB | without libraries, GB | s a step | of which sampling |"
    yield "|---|---|---|---|---|---|"
    sides = {side: found for side in record["sides"] if (found := _summary(record, side)) is not None}
    for side, about in record["sides"].items():
        if side in sides:
            found = sides[side]
            sizes = (f"{found[key] / 1e9:.2f}" for key in ("weights", "memory", "own"))
            yield "| " + " | ".join([about["title"], *sizes, f"{found['step']:.2f}", f"{found['sampling']:.2f}"]) + " |"
        else:
            failed = [run["failed"] for run in record["runs"] if run["side"] == side and "failed" in run]
            yield f"| {about['title']} | failed: {(failed or ['not run'])[0].replace('|', ' ')} | | | | |"
    yield ""
    for one, other in (("rloo", "ppo"), ("shared", "separate")):
        if one in sides and other in sides:
            parts = [f"{100 * sides[one][key] / sides[other][key]:.0f} % of {what}" for key, what in _SHARES.items()]
            yield (
                f"{SIDES[one][0]}, against {SIDES[other][0]}: {', '.join(parts)}; "
                f"{sides[other]['step'] / sides[one]['step']:.2f} times as fast."
            )
            yield ""


_SHARES = {"weights": "the weights", "memory": "the peak memory", "own": "the peak memory without libraries"}


def _summary(record: Mapping[str, Any], side: str) -> dict[str, float] | None:
    """Medians over the runs of a side: bytes, and seconds of a step after the first."""
    runs = [run for run in record["runs"] if run["side"] == side and "failed" not in run]
    if not runs:
        return None
    steps = [later - sooner for run in runs for sooner, later in zip(run["ends"], run["ends"][1:], strict=False)]
    return {
        "weights": median(run["weights"] for run in runs),
        "memory": median(run["memory_peak"] for run in runs),
        "own": median(run["memory_peak"] - run["libraries"] for run in runs),
        "step": median(steps or [run["ends"][0] for run in runs]),
        "sampling": median(run["sampling"]["seconds"] / len(run["ends"]) for run in runs),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollouts.networks", description=__doc__)
    add = parser.add_argument
    add("--sides", type=lambda text: text.split(","), default=list(SIDES), help=f"by comma ({','.join(SIDES)})")
    add("--size", choices=SIZES, default="160m", help="of the model (160m)")
    add("--prompts", type=int, default=2, help="prompts a step (2)")
    add("--samples", type=int, default=4, help="samples of each (4)")
    add("--tokens", type=int, default=24, help="most tokens of a sample (24)")
    add("--steps", type=int, default=5, help="steps, the first of which warms up (5)")
    add("--repeats", type=int, default=3, help="runs of every side (3)")
    add("--threads", type=int, default=2, help="of torch (2)")
    add("--output", type=Path, default=RESULTS, help="where the record goes (benchmarks/results)")
    add("--work", help="where models and logs go, to be kept; a temporary directory if not given")
    return parser


if __name__ == "__main__":
    sys.exit(main())
