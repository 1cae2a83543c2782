"""What a run leaves behind: files that say what was done, and a model that is the one that was trained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import xpo
from tests import tiny
from tests.refusals import one_message
from tests.runs.conftest import Done, Train, command
from xpo.data.sources import read
from xpo.errors import PluginError
from xpo.plugins import load
from xpo.train.record import RunRecord
from xpo.train.trainer import PreferenceTrainer

PAIRS = tiny.rows("pairs", 12)
LORA = "--use_peft --lora_r 4 --lora_target_modules all-linear"
COMMON = {"README.md", "run.json", "history.jsonl", "history.png", "tokenizer.json", "tokenizer_config.json"}
REWARD = "def reward(completion_ids, **_):\n    return [sum(ids) / 100 for ids in completion_ids]\n"

#: Every line xpo may write to stderr in a run without faults.
OWN = re.compile(
    r"(model|algorithm|reference|data|held out): .+|saved to .+"
    r"|(eval  )?step \d+/\d+  loss .+"
    r"|a step: .+|\d+ of \d+ (rows|examples) .+|\d+ rows a pass are left out: .+"
    r"|Each (pair|list) became .+|Only the prompts of the data are used, each once\."
)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    [file] = folder.glob("*model.safetensors")
    return load_file(file)


def log_probability(model: Any, prompt: str, completion: str) -> float:
    """Of the completion and its end, computed without any of xpo."""
    tokenizer = tiny.tokenizer()
    start = tokenizer(prompt)["input_ids"]
    ids = torch.tensor([start + tokenizer(completion)["input_ids"] + [tiny.EOS]])
    with torch.no_grad():
        logps = model(input_ids=ids).logits.log_softmax(-1)[0, :-1]
    return float(logps.gather(-1, ids[0, 1:, None])[len(start) - 1 :].sum())


def mean_chosen(model: Any, rows: list[dict[str, Any]]) -> float:
    return sum(log_probability(model.eval(), row["prompt"], row["chosen"]) for row in rows) / len(rows)


@pytest.mark.parametrize("how", ["", LORA])
def test_the_model_on_disk_is_the_one_that_was_trained(
    trained: Train, model: Path, write: Callable[..., Path], how: str
) -> None:
    held = tiny.rows("pairs", 5, seed=1)
    line = f"--algo dpo --learning_rate 1e-2 --eval_strategy steps --eval_steps 2 {how}"
    done = trained(line, "--eval_dataset", write(held, "held.jsonl"), data=PAIRS)
    said = next(entry["eval_logps/chosen"] for entry in done.history if "eval_logps/chosen" in entry)
    start = AutoModelForCausalLM.from_pretrained(model)
    assert abs(mean_chosen(start, held) - said) > 0.05
    if how:
        assert names(done.folder) == COMMON | {"adapter_config.json", "adapter_model.safetensors"}
        found = PeftModel.from_pretrained(start, done.folder)
    else:
        assert names(done.folder) == COMMON | {"config.json", "generation_config.json", "model.safetensors"}
        found = AutoModelForCausalLM.from_pretrained(done.folder)
    assert mean_chosen(found, held) == pytest.approx(said, abs=1e-3)
    tokenizer = AutoTokenizer.from_pretrained(done.folder)
    assert tokenizer("w3 w4")["input_ids"] == [3, 4]
    assert tokenizer.eos_token_id == tiny.EOS


def test_the_record_says_what_was_done(trained: Train, write: Callable[..., Path], model: Path) -> None:
    data = write(PAIRS)
    done = trained("--algo dpo --beta 0.3 --seed 7", data=data)
    body = json.loads((done.folder / "run.json").read_text())
    assert body["algorithm"] == "dpo"
    assert body["algorithm_settings"]["beta"] == 0.3
    assert body["seed"] == body["settings"]["training"]["seed"] == 7
    assert {"beta", "seed", "max_steps"} <= set(body["settings"]["given"])
    assert {"xpo", "python", "torch", "transformers", "trl", "peft"} <= set(body["versions"])
    assert body["data"]["kind"] == "pairs"
    assert body["data"]["rows"] == body["data"]["groups"] == len(PAIRS)
    assert body["data"]["fingerprint"] == read(str(data)).fingerprint
    assert body["model"] == {
        "name": str(model),
        "dtype": "float32",
        "quantization": None,
        "adapter": None,
        "reads": "policy",
        "embedded": False,
        "auto_class": "AutoModelForCausalLM",
        **dict.fromkeys(("parameters", "trainable"), sum(p.numel() for p in tiny.model().parameters())),
    }
    assert body["cost"]["steps"] == 2
    # A prompt counts once, both completions with their ends.
    own = [len(r["prompt"].split()) + len(r["chosen"].split()) + len(r["rejected"].split()) + 2 for r in PAIRS]
    assert sum(sorted(own)[:8]) <= body["cost"]["tokens"] <= sum(sorted(own)[-8:])
    assert body["cost"]["seconds"] > 0
    assert body["cost"]["peak_memory_bytes"] > 2**20
    assert body["finished"] >= body["started"]
    assert body["metrics"]["loss"] == done.history[1]["loss"]
    assert [entry["step"] for entry in done.history if "loss" in entry] == [1, 2]
    assert (done.folder / "history.png").read_bytes().startswith(b"\x89PNG")


def test_the_card_says_what_was_done_and_shows_no_row(trained: Train, write: Callable[..., Path]) -> None:
    data = write(PAIRS)
    done = trained("--algo dpo --beta 0.3 --eval_size 4 --eval_prompts 4", data=data)
    card = (done.folder / "README.md").read_text()
    record = done.record
    assert load().algorithm("dpo").cls.equation in card
    assert "| kind | pairs |" in card
    assert record.data["fingerprint"] in card
    assert "| **`beta`** | `0.3` | `0.1` |" in card
    assert f"| torch | {torch.__version__} |" in card
    assert "](history.png)" in card
    assert record.samples
    assert not [text for row in PAIRS for text in (row["prompt"], row["chosen"].strip()) if text in card]
    assert str(done.folder.parent) not in card


def test_a_run_is_quiet_but_for_its_own_lines(model: Path, write: Callable[..., Path], tmp_path: Path) -> None:
    path = write([*PAIRS, PAIRS[0]])
    words = ["train", "--algo", "kto", "--model", model, "--dataset", path, "--output_dir", "out", "--max_steps", "2"]
    words += ["--eval_size", "4", "--eval_prompts", "2", "--eval_steps", "1", "--per_device_train_batch_size", "4"]
    done = command(words, tmp_path)
    assert done.status == 0, done.err
    strange = [line for line in done.err.splitlines() if not OWN.fullmatch(line)]
    assert strange == []
    assert "Each pair became two labelled completions: chosen is desirable, rejected is not." in done.err
    assert "kto: before and after" in done.out
    assert "warn" not in (done.out + done.err).lower()
    assert "%|" not in done.out


def test_adapters_and_rollouts_are_quiet_too(tmp_path: Path) -> None:
    words = ["train", "--algo", "rloo", "--output_dir", "out", "--max_steps", "1", "--eval_prompts", "4", *LORA.split()]
    words += ["--per_device_train_batch_size", "2", "--max_completion_length", "8"]
    done = command(words, tmp_path)
    assert done.status == 0, done.err
    assert [line for line in done.err.splitlines() if not OWN.fullmatch(line)] == []
    assert "mean reward" in done.out
    assert done.record.model["embedded"] is True


@pytest.mark.parametrize("algo", ["dpo", "rloo"])
def test_a_seed_decides_everything(trained: Train, tmp_path: Path, algo: str) -> None:
    line = f"--algo {algo} --eval_size 5 --eval_prompts 5 --eval_steps 1 --learning_rate 1e-2 {LORA} --lora_dropout 0.1"
    line += " --disable_dropout false"
    if algo == "rloo":
        (tmp_path / "judge.py").write_text(REWARD)
        line += f" --reward {tmp_path / 'judge.py'}:reward --max_completion_length 8"
    first, again, other = (
        trained(f"{line} --seed {seed}", data=tiny.rows("pairs", 20), out=out).record
        for seed, out in ((3, "first"), (3, "again"), (4, "other"))
    )
    assert first.metrics
    assert first.samples
    assert first.metrics == again.metrics
    assert first.comparison == again.comparison
    assert first.samples == again.samples
    assert other.metrics != first.metrics
    assert other.data["fingerprint"] != first.data["fingerprint"]  # other rows are held out


# The output directory


@pytest.fixture
def earlier(trained: Train) -> Done:
    return trained("--algo dpo --save_strategy steps --save_steps 2", data=PAIRS)


def test_an_earlier_run_is_not_written_over(train: Train, earlier: Done) -> None:
    before = {path: path.stat().st_mtime_ns for path in earlier.folder.rglob("*")}
    done = train("--algo simpo", data=PAIRS)
    assert done.status == 2
    assert "holds an earlier run" in done.err
    assert "--overwrite" in done.err
    assert f"--resume_from_checkpoint {earlier.folder / 'checkpoint-2'}" in done.err
    assert {path: path.stat().st_mtime_ns for path in earlier.folder.rglob("*")} == before


@pytest.mark.parametrize("step", [1, 2])
def test_only_a_run_that_made_a_step_stands_in_the_way_of_the_next(
    train: Train, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    def fails(trainer: PreferenceTrainer, *arguments: Any, **keywords: Any) -> torch.Tensor:
        if trainer.state.global_step == step - 1:
            raise PluginError("it cannot be")
        return whole(trainer, *arguments, **keywords)

    whole = PreferenceTrainer.compute_loss
    with monkeypatch.context() as patch:
        patch.setattr(PreferenceTrainer, "compute_loss", fails)
        done = train("--algo dpo", data=PAIRS)
    assert (done.status, done.err.splitlines()[-1]) == (2, "xpo: it cannot be")
    assert done.folder.exists() == (step > 1)
    assert train("--algo dpo", data=PAIRS).status == (2 if step > 1 else 0)


def test_overwrite_leaves_nothing_of_it_but_what_is_the_users(train: Train, earlier: Done) -> None:
    (earlier.folder / "notes.txt").write_text("mine")
    done = train(f"--algo simpo --overwrite {LORA}", data=PAIRS)
    assert done.status == 0, done.err
    assert names(done.folder) == COMMON | {"adapter_config.json", "adapter_model.safetensors", "notes.txt"}
    assert done.record.algorithm == "simpo"


def test_overwrite_never_removes_what_is_read(train: Train, earlier: Done) -> None:
    done = train("--algo dpo --overwrite", data=PAIRS, base=earlier.folder)
    assert done.status == 2
    assert "which this run reads" in done.err
    assert (earlier.folder / "model.safetensors").exists()


def test_a_directory_of_someone_else_is_left_alone(train: Train, tmp_path: Path) -> None:
    tiny.saved(tmp_path / "out")
    for flag in ("", " --overwrite"):
        done = train("--algo dpo" + flag, data=PAIRS)
        assert done.status == 2
        assert "choose another --output_dir" in done.err
        assert not (tmp_path / "out" / "run.json").exists()


# Resuming


@pytest.mark.parametrize("algo", ["dpo", "simpo", "kto", "rloo", f"dpo {LORA}"])
def test_a_resumed_run_ends_where_an_unbroken_one_does(trained: Train, tmp_path: Path, algo: str) -> None:
    line = f"--algo {algo} --max_steps 4 --save_strategy steps --save_steps 2"
    if algo == "rloo":
        (tmp_path / "judge.py").write_text(REWARD)
        line += f" --reward {tmp_path / 'judge.py'}:reward --max_completion_length 5"
    whole = trained(line, data=PAIRS, out="whole")
    resumed = trained(line, "--resume_from_checkpoint", whole.folder / "checkpoint-2", data=PAIRS, out="resumed")
    ends, found = weights(whole.folder), weights(resumed.folder)
    assert ends.keys() == found.keys()
    assert all(torch.equal(ends[name], found[name]) for name in ends)
    halfway = weights(whole.folder / "checkpoint-2")
    assert not all(torch.equal(ends[name], halfway[name]) for name in ends)
    assert "step 1/4" not in resumed.err
    assert "step 3/4" in resumed.err
    assert [entry["step"] for entry in resumed.history if "loss" in entry] == [1, 2, 3, 4]
    steps = [{key: entry[key] for key in ("step", "loss", "grad_norm")} for entry in whole.history if "loss" in entry]
    again = [{key: entry[key] for key in ("step", "loss", "grad_norm")} for entry in resumed.history if "loss" in entry]
    assert steps == again


def test_a_bare_flag_resumes_in_place(trained: Train, earlier: Done) -> None:
    line = "--algo dpo --max_steps 4 --save_strategy steps --save_steps 2 --resume_from_checkpoint"
    done = trained(line, data=PAIRS)
    assert done.folder == earlier.folder
    assert names(done.folder) >= {"checkpoint-2", "checkpoint-4"}
    assert done.record.cost.steps == 4


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--resume_from_checkpoint", "holds no checkpoint"),
        ("--resume_from_checkpoint nowhere", "no such directory"),
        ("--resume_from_checkpoint {folder}", "not a checkpoint"),
        ("--resume_from_checkpoint {done}/checkpoint-2", "at step 2 already; raise --max_steps 2"),
        ("--resume_from_checkpoint {done}/checkpoint-2 --overwrite --output_dir {done}", "drop one"),
    ],
)
def test_what_cannot_be_resumed(train: Train, earlier: Done, tmp_path: Path, flag: str, message: str) -> None:
    done = train("--algo dpo " + flag.format(folder=tmp_path, done=earlier.folder), data=PAIRS, out="new")
    assert message in one_message(done.status, done.err)
    assert not done.folder.exists()
    assert (earlier.folder / "checkpoint-2").exists()


def test_a_run_can_start_from_the_output_of_another(trained: Train, earlier: Done) -> None:
    on = trained("--algo simpo", data=PAIRS, base=earlier.folder, out="on")
    assert on.record.model["name"] == str(earlier.folder)
    adapter = trained(f"--algo dpo {LORA}", data=PAIRS, base=earlier.folder, out="adapter")
    further = trained("--algo dpo --use_peft --learning_rate 1e-2", data=PAIRS, base=adapter.folder, out="further")
    assert further.record.model["adapter"] == "continued"
    assert names(further.folder) == COMMON | {"adapter_config.json", "adapter_model.safetensors"}
    old, new = weights(adapter.folder), weights(further.folder)
    assert old.keys() == new.keys()
    assert not all(torch.equal(old[name], new[name]) for name in old)


def test_the_record_loads_from_python(earlier: Done) -> None:
    record = RunRecord.load(earlier.folder)
    assert isinstance(record, xpo.RunRecord)
    assert record.metrics["rewards/margins"] is not None
