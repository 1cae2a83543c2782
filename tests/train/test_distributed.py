"""Two processes of half the batch take the same steps as one process, and speak and write once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.conftest import ROOT
from xpo.cli import main

#: AdamW divides by the size of the gradient: with its own epsilon of 1e-8, the rounding of a few gradients near zero,
#: summed in another order, becomes a difference of 1e-5 in those weights.
COMMON = [
    *("--use_cpu", "--learning_rate", "1e-3", "--adam_epsilon", "1e-6", "--warmup_steps", "0"),
    *("--logging_steps", "1", "--num_train_epochs", "1", "--save_strategy", "no", "--dataloader_num_workers", "0"),
]
ROLLOUTS = ["--reward", "REWARD:low_ids", "--max_completion_length", "6"]
REWARD = """
def low_ids(completion_ids, **_):
    return [sum(1 - token / 40 for token in ids) / 4 for ids in completion_ids]
"""

#: Name -> algorithm, rows, groups of a micro-batch over all processes, and the rest of the command line. 13 rows in
#: micro-batches of 4 leave one row for two processes: one of them idles.
RUNS: dict[str, tuple[str, int, int, list[str]]] = {
    "dpo": ("dpo", 13, 4, []),
    "dpo, accumulated": ("dpo", 13, 2, ["--gradient_accumulation_steps", "2"]),
    "dpo, adapters": ("dpo", 13, 4, ["--use_peft", "--lora_r", "4", "--lora_target_modules", "all-linear"]),
    "simpo": ("simpo", 13, 4, ["--sft_weight", "0.5"]),
    "kto": ("kto", 14, 4, ["--beta", "1.0"]),
    "kto, z0 zero": ("kto", 13, 4, ["--z0", "zero"]),
    "a list": ("lipo", 13, 4, []),
    "a reward model": ("bradley_terry", 13, 4, []),
    # At the first step a completion whose reward and value are both zero has no gradient but rounding.
    "a value model": ("dro_v", 13, 4, ["--adam_epsilon", "1e-3"]),
    "a sum": ("dpo + 0.3*sft", 13, 4, ["--dpo.beta", "0.3"]),
    "rloo": ("rloo", 13, 4, ROLLOUTS),
    "ppo": ("ppo", 13, 4, [*ROLLOUTS, "--num_generations", "2"]),
    "pairs of samples": ("dpo", 13, 4, [*ROLLOUTS, "--online", "--online_pairs", "all", "--num_generations", "3"]),
    "labels of stale samples": (
        "kto",
        13,
        4,
        [*ROLLOUTS, "--online", "--refresh_steps", "2", "--num_generations", "3"],
    ),
    "an opponent": ("nash_md", 13, 4, ROLLOUTS),
    "rounds": ("simpo", 13, 4, [*ROLLOUTS, "--online", "--rounds", "2"]),
    "a reference that follows": ("ipo", 13, 4, ["--sync_ref_model", "--ref_model_sync_steps", "2"]),
    "rloo, normalised, used twice": ("rloo", 13, 4, [*ROLLOUTS, "--normalize_advantages", "--num_iterations", "2"]),
}
KINDS = {
    "ipo": "pairs",
    "nash_md": "prompts",
    **dict.fromkeys(("dpo", "simpo", "bradley_terry", "dpo + 0.3*sft"), "pairs"),
    "kto": "labels",
    "dro_v": "labels",
    "lipo": "lists",
    "rloo": "prompts",
    "ppo": "prompts",
}


def command(name: str, folder: Path, output: Path, processes: int) -> list[str]:
    algorithm, count, batch, rest = RUNS[name]
    kind = "prompts" if "--online" in rest else KINDS[algorithm]
    data = folder / f"{kind}-{count}.jsonl"
    if not data.exists():
        data.write_text("".join(json.dumps(row) + "\n" for row in tiny.rows(kind, count)))
    return [
        *("train", "--algo", algorithm, "--model", str(folder / "model"), "--dataset", str(data)),
        *("--output_dir", str(output), "--per_device_train_batch_size", str(batch // processes)),
        *(*COMMON, *(word.replace("REWARD", str(folder / "reward.py")) for word in rest)),
    ]


def launch(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launcher, *words], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-5000:]
    return done


def history(folder: Path) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [entry for entry in entries if "loss" in entry]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def check(two: Path, one: Path, start: dict[str, torch.Tensor]) -> None:
    ours, theirs = history(two), history(one)
    assert len(ours) == len(theirs) >= 3
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            if key == "rewards/accuracies" and abs(a["rewards/margins"]) < 1e-5:
                continue  # of rounding: the policy still is the reference
            tolerance = 1e-5 if key == "loss" else 1e-4
            assert a[key] == pytest.approx(b[key], abs=tolerance, rel=tolerance), (key, a["step"])
    there, here = weights(two), weights(one)
    assert there.keys() == here.keys()
    assert max(float((there[name] - here[name]).abs().max()) for name in here) < 1e-5
    moved = [float((here[name] - start[name]).abs().max()) for name in here if name in start]
    assert not moved or max(moved) > 1e-3


def once(lines: Iterable[str], beginnings: Iterable[str]) -> None:
    count = Counter(beginning for line in lines for beginning in beginnings if line.startswith(beginning))
    assert count == dict.fromkeys(beginnings, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("distributed")
    tiny.saved(made / "model")
    (made / "reward.py").write_text(REWARD)
    return made


def test_the_command_on_two_processes(folder: Path) -> None:
    words = command("kto", folder, folder / "command-2", processes=2)
    if not torch.accelerator.is_available():
        words.remove("--use_cpu")  # where there is nothing else nobody has to say it
    done = launch("-m", "xpo", *words)
    assert main(command("kto", folder, folder / "command-1", processes=1)) == 0
    check(folder / "command-2", folder / "command-1", weights(folder / "model"))
    steps = [f"step {number}/4 " for number in range(1, 5)]
    once(done.stderr.splitlines(), ["model: ", "algorithm: ", "reference: ", "data: ", "saved to ", *steps])
    assert done.stdout.count("before and after") == done.stdout.count("│ steps ") == 1
    assert not list(folder.glob("command-2/.*"))
    assert json.loads((folder / "command-2" / "run.json").read_text())["finished"]
    assert len((folder / "command-2" / "history.jsonl").read_text().splitlines()) == 5  # and the summary of the loop
    tokens = [json.loads((folder / f"command-{n}" / "run.json").read_text())["cost"]["tokens"] for n in (1, 2)]
    assert tokens[0] == tokens[1] > 0


ALL = """
import json, sys
from xpo.cli import main
for words in json.load(open(sys.argv[1])):
    status = main(words)
    if status:
        sys.exit(status)
"""


@pytest.fixture(scope="module")
def launched(folder: Path) -> Path:
    """Every run on two processes, one after the other in the same two: starting them is what takes the time."""
    script, commands = folder / "all.py", folder / "all.json"
    script.write_text(ALL)
    commands.write_text(json.dumps([command(name, folder, folder / "two" / name, processes=2) for name in RUNS]))
    launch(str(script), str(commands))
    return folder / "two"


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_one(launched: Path, folder: Path, name: str) -> None:
    one = folder / "one" / name
    assert main(command(name, folder, one, processes=1)) == 0
    check(launched / name, one, weights(folder / "model"))
