"""Settings files, and command lines written for TRL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests import tiny
from tests.refusals import one_message
from tests.runs.conftest import Train
from xpo.cli import main
from xpo.train.record import RunRecord

PAIRS = tiny.rows("pairs", 12)


def test_a_file_says_it_all_and_flags_win(
    tmp_path: Path, model: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    content = {
        "algo": "dpo",
        "model_name_or_path": str(model),
        "dataset_name": str(write(PAIRS)),
        "output_dir": str(tmp_path / "out"),
        "beta": 0.5,
        "learning_rate": "1e-3",  # what PyYAML makes of 1e-3 without a point
        "per-device-train-batch-size": 4,
        "max_steps": 9,
        "max_length": None,
        "eval_strategy": False,  # and of a bare no
        "report_to": "none",
        "use_cpu": True,
        "seed": 5,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    assert main(["train", "--max_steps", "2", "--config", str(tmp_path / "run.yaml"), "--seed", "6"]) == 0
    record = RunRecord.load(tmp_path / "out")
    assert record.cost.steps == 2
    assert record.seed == 6
    assert record.algorithm_settings["beta"] == 0.5
    training, run = record.settings["training"], record.settings["run"]
    assert (training["learning_rate"], training["per_device_train_batch_size"]) == (1e-3, 4)
    assert (training["eval_strategy"], run["max_length"]) == ("no", None)
    assert "step 1/2" in capsys.readouterr().err


def test_the_file_and_the_flags_make_the_same_run(trained: Train, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("algo: simpo\ngamma: 0.7\nmax_steps: 3\n")
    # The fixture says --max_steps 2, and flags win wherever the file stands.
    filed = trained("", "--config", tmp_path / "run.yaml", data=PAIRS, out="filed")
    flagged = trained("--algo simpo --gamma 0.7", data=PAIRS, out="flagged")
    assert filed.record.metrics == flagged.record.metrics
    assert filed.record.cost.steps == 2


def test_a_command_line_of_trl(
    tmp_path: Path, model: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    write(PAIRS[:8], "data/train.jsonl")
    write(PAIRS[8:], "data/test.jsonl")
    line = f"""
        --dataset_name {folder} --model_name_or_path {model} --learning_rate 5.0e-4 --num_train_epochs 1
        --per_device_train_batch_size 2 --gradient_accumulation_steps 2 --max_length 64 --beta 0.2
        --use_peft --lora_r 4 --lora_alpha 8 --lora_target_modules q_proj v_proj --bf16 false --use_cpu
        --eval_strategy steps --eval_steps 1 --logging_steps 1 --logging_first_step --report_to none
        --output_dir {tmp_path / "out"} --no_remove_unused_columns --gradient_checkpointing
        --dataset_train_split train --dataset_test_split test --loss_type sigmoid --precompute_ref_log_probs false
        --warmup_ratio 0.1 --lr_scheduler_type cosine --save_strategy no --torch_dtype float32
    """
    assert main(["train", "--algo", "dpo", *line.split()]) == 0, capsys.readouterr().err
    record = RunRecord.load(tmp_path / "out")
    assert record.cost.steps == 2
    assert record.model["adapter"] == "new"
    assert record.algorithm_settings["beta"] == 0.2
    assert record.settings["model"]["lora_target_modules"] == ["q_proj", "v_proj"]
    assert record.metrics["eval_loss"] is not None
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_what_changes_nothing_and_what_a_step_samples_is_told(trained: Train, tmp_path: Path) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text("def short(completions, **_):\n    return [-float(len(text)) for text in completions]\n")
    line = f"--algo rloo --reward {reward}:short --num_generations 3 --max_completion_length 4 --dataset_num_proc 2"
    done = trained(line, data=[{"prompt": row["prompt"]} for row in PAIRS])
    said = done.err.splitlines()
    assert "a step: 4 prompts x 3 samples = 12 completions" in said
    assert "--dataset_num_proc 2 changes nothing: rows are prepared in one process" in said


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--loss_type ipo", "--loss_type ipo: dpo is loss_type sigmoid"),
        ("--padding_value 4", "--padding_value cannot be honoured"),
        ("--generate_during_eval true", "completions are shown at the end of a run"),
        ("--use_liger_kernel", "--use_liger_kernel cannot be honoured"),
        ("--remove_unused_columns false --packing", "--packing cannot be honoured"),
    ],
)
def test_flags_of_trl_that_would_be_ignored_are_refused(train: Train, flag: str, message: str) -> None:
    done = train(f"--algo dpo {flag}", data=PAIRS)
    assert message in one_message(done.status, done.err)
    assert not done.folder.exists()
