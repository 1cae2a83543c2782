"""``xpo plan``: a table or JSON, the same mistakes as ``xpo train``, and nothing written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny
from tests.refusals import one_message
from xpo.cli import main

#: ``command("plan", "--flag value")`` -> (status, standard output, standard error)
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    base = tiny.saved(tmp_path / "model")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in tiny.rows("pairs", 12)))
    monkeypatch.chdir(tmp_path)

    def run(name: str, line: str) -> tuple[int, str, str]:
        capsys.readouterr()
        known = f"--model {base} --dataset {rows} --use_cpu --per_device_train_batch_size 4"
        status = main([name, *known.split(), *line.split()])
        return (status, *capsys.readouterr())

    return run


def test_as_json(command: Command, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    status, out, _ = command("plan", "--algo dpo --use_peft --json --max_steps 3")
    assert status == 0
    plan = json.loads(out)
    assert set(plan) == {
        *("algorithm", "model", "reference", "lines", "rows", "groups", "steps", "batch", "layout", "layouts", "saved"),
        *("libraries", "phases", "peak", "device", "room", "fits", "advice"),
    }
    assert set(plan["model"]) == {"name", "parameters", "trainable", "dtype", "adapter", "quantization"}
    assert set(plan["layouts"]) == {"padded", "tree"}
    assert set(plan["layouts"]["tree"]) == {"positions", "tokens", "fill", "peak"}
    assert plan["steps"] == {"pass": 3, "total": 3}
    for phase in plan["phases"].values():
        assert phase["total"] == sum(size for part, size in phase.items() if part != "total")
    assert plan["peak"] == plan["libraries"] + max(phase["total"] for phase in plan["phases"].values())
    assert plan["fits"] == {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    assert set(tmp_path.rglob("*")) == before


def test_as_tables(command: Command) -> None:
    status, out, err = command("plan", "--algo dpo --gradient_accumulation_steps 2 --max_length 12")
    assert (status, err) == (0, "")
    for words in (
        "model: model, ",
        "(full fine-tuning, float32)",
        "reference: frozen copy of the starting model",
        "to fit --max_length 12",
        "steps: 2 a pass, 6 in all, of 8 rows: 4 a micro-batch, 2 of them",
        "tree (used)",
        "fewer positions",
        "optimiser step",
        "libraries",
        "peak memory: ",
        "fits: --per_device_train_batch_size 8 --gradient_accumulation_steps 1",
    ):
        assert words in out, words


def test_what_does_not_fit_comes_with_a_way_out(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpo.train.plan.room", lambda device: 1000)
    _, out, _ = command("plan", "--algo dpo --gradient_checkpointing")
    line = next(line for line in out.splitlines() if line.startswith("fits: "))
    assert line == (
        "fits: no batch does; lower --max_length, train adapters with --use_peft, load the model in 4 bits with "
        "--load_in_4bit, or take a smaller model"
    )


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--algo dop",
        "--algo dpo --lerning_rate 1",
        "--algo dpo --beta x",
        "--algo dpo --load_in_4bit",
        "--algo dpo --model ./nowhere",
        "--algo dpo --dataset nothing.jsonl",
        "--algo dpo --eval_strategy steps",
        "--algo kto --per_device_train_batch_size 1",
        "--algo dpo --use_peft --lora_target_modules nothing",
        "--algo dpo --optim lomo",
        "--algo dpo stray",
        "--algo dpo --config nothing.yaml",
    ],
)
def test_mistakes_are_those_of_training(command: Command, line: str) -> None:
    status, out, err = command("plan", line)
    assert out == ""
    assert one_message(status, err)
    assert err.splitlines()[-1] == command("train", f"{line} --max_steps 1")[2].splitlines()[-1]


def test_help_does_not_wait_for_torch() -> None:
    code = """
import sys
from xpo.cli import main
assert main(["plan", "--help"]) == 0
print(*(name for name in ("torch", "transformers", "trl", "rich") if name in sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert "usage: xpo plan" in done.stdout
