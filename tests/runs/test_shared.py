"""Real data and small real models, if they lie beside the repository: every file trains, and no row is shown."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.conftest import ROOT
from tests.runs.conftest import Train

SHARED = Path(os.environ.get("XPO_SHARED", ROOT.parent / "shared"))
LORA = "--use_peft --lora_r 4 --lora_target_modules all-linear"
SHORT = "--max_steps 3 --per_device_train_batch_size 2 --max_length 512 --sample_completions 0"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (SHARED / "models" / "stories260K").is_dir(), reason="no shared data (set XPO_SHARED)"),
]

#: File -> the model that its rows need.
PAIRS = {
    **dict.fromkeys(("tofu_facts", "truthfulqa", "pandalm_human", "blimp"), "stories260K"),
    **dict.fromkeys(("hh_harmless", "dpo_mix_demo"), "stories260K-chat"),
}


def data(name: str) -> Path:
    return SHARED / "data" / f"{name}.jsonl.gz"


def count(name: str) -> int:
    with gzip.open(data(name), "rt", encoding="utf-8") as file:
        return sum(1 for line in file if json.loads(line))


@pytest.mark.parametrize("how", ["", LORA], ids=["full", "lora"])
@pytest.mark.parametrize("name", PAIRS)
def test_pairs(trained: Train, name: str, how: str) -> None:
    base = SHARED / "models" / PAIRS[name]
    longer = "--max_length 2048" if name == "dpo_mix_demo" else ""  # few of its answers fit into less
    done = trained(f"--algo dpo {SHORT} --eval_size 8 {how} {longer}", data=data(f"pairs/{name}"), base=base)
    record = done.record
    assert record.cost.steps == 3
    assert record.data["rows"] + 8 <= count(f"pairs/{name}")
    assert record.metrics["loss"] is not None
    [row] = [row for row in record.comparison if "implicit" in row.name]
    assert row.after is not None
    start = AutoModelForCausalLM.from_pretrained(base)
    if how:
        PeftModel.from_pretrained(start, done.folder)
    else:
        AutoModelForCausalLM.from_pretrained(done.folder)


@pytest.mark.parametrize(("name", "model"), [("truthfulqa", "stories260K"), ("kto_mix_demo", "stories260K-chat")])
def test_labels(trained: Train, name: str, model: str) -> None:
    record = trained(f"--algo kto {SHORT}", data=data(f"labels/{name}"), base=SHARED / "models" / model).record
    assert record.data["kind"] == "labels"
    assert record.metrics["loss"] is not None


@pytest.mark.parametrize("pairing", ["best_worst", "all"])
@pytest.mark.parametrize("name", ["pandalm_human", "tofu_facts", "truthfulqa"])
def test_lists(trained: Train, name: str, pairing: str) -> None:
    line = f"--algo simpo --lists_to_pairs {pairing} {SHORT}"
    done = trained(line, data=data(f"lists/{name}"), base=SHARED / "models" / "stories260K")
    assert done.record.metrics["loss"] is not None
    assert any(line.startswith("Each list became") for line in done.said)


def test_rollouts_of_a_python_reward(trained: Train, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(
        "def short(completions, **_):\n    return [-len(c) / 100 for c in completions]\n"
    )
    line = f"--algo rloo {SHORT} --max_completion_length 24 --eval_size 4 --eval_prompts 4"
    reward = ["--reward", f"{tmp_path / 'judge.py'}:short"]
    record = trained(line, *reward, data=data("pairs/pandalm_human"), base=SHARED / "models" / "stories260K").record
    assert record.metrics["reward"] is not None
    assert {"mean reward", "KL to the start", "mean length"} <= {row.name for row in record.comparison}


def test_the_card_of_a_run_holds_no_row(trained: Train) -> None:
    base = SHARED / "models" / "stories260K-chat"
    done = trained(f"--algo dpo {SHORT} --eval_size 8 --eval_prompts 4", data=data("pairs/hh_harmless"), base=base)
    card = (done.folder / "README.md").read_text()
    lines = {line.strip() for row in done.record.samples for line in f"{row.prompt}\n{row.after}".splitlines()}
    # Counted, so that a failure does not show them.
    assert len(lines) > 4
    assert sum(len(line) > 20 and line in card for line in lines) == 0
