"""Runs in which numbers go wrong: they end with one message, and leave no model of NaN that looks like a result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import tiny
from tests.refusals import one_message
from tests.runs.conftest import Train
from xpo.train.lock import Lock

PAIRS = tiny.rows("pairs", 12)
REWARD = "def reward(completion_ids, **_):\n    return [sum(ids) / 100 for ids in completion_ids]"
DIVERGING = "--max_steps 6 --learning_rate 1e30 --max_grad_norm 0"


@pytest.mark.parametrize("saving", ["no", "steps --save_steps 1 --save_total_limit 1"])
def test_a_run_that_diverged_ends_and_saves_nothing_of_it(train: Train, saving: str) -> None:
    done = train(f"--algo dpo {DIVERGING} --save_strategy {saving}", data=PAIRS)
    assert done.status == 2
    message = done.err.splitlines()[-1]
    assert message.startswith("xpo: training diverged")
    for way in ("lower --learning_rate 1e+30", "--max_grad_norm 1"):
        assert way in message
    assert not list(done.folder.glob("*.safetensors"))
    assert done.record.finished is None
    assert done.history[-1]["loss"] is None or done.history[-1]["grad_norm"] is None
    for checkpoint in done.folder.glob("checkpoint-*"):
        weights = AutoModelForCausalLM.from_pretrained(checkpoint).parameters()
        assert all(bool(one.isfinite().all()) for one in weights)


def test_it_is_noticed_at_the_end_where_nothing_was_logged_before(train: Train) -> None:
    done = train(f"--algo dpo {DIVERGING} --logging_steps 100 --no_logging_first_step", data=PAIRS)
    assert done.status == 2
    assert "training diverged" in done.err
    assert not list(done.folder.glob("*.safetensors"))


@pytest.mark.parametrize("line", ["--algo dpo", "--algo simpo --layout padded", "--algo dpo --reference_model NAN"])
def test_a_model_of_nan_is_refused_before_anything_is_written(
    train: Train, model: Path, tmp_path: Path, line: str
) -> None:
    broken = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "broken")
    beside = "NAN" in line
    done = train(
        line.replace("NAN", str(tmp_path / "broken")), data=PAIRS, base=model if beside else tmp_path / "broken"
    )
    assert done.status == 2
    message = done.err.splitlines()[-1]
    assert message.startswith("xpo: the model ")
    assert str(tmp_path / "broken") in message
    assert "NaN" in message
    assert not done.folder.exists()


def test_weights_of_bfloat16_that_did_not_move_are_noted(trained: Train) -> None:
    done = trained("--algo dpo --dtype bfloat16 --learning_rate 1e-7", data=PAIRS)
    assert any("kept in bfloat16" in note for note in done.record.notes)


def test_a_metric_that_does_not_exist_is_refused_before_the_run(train: Train) -> None:
    line = "--eval_strategy steps --eval_steps 1 --eval_size 4 --save_strategy best --metric_for_best_model"
    done = train(f"--algo dpo {line} accuracy", data=PAIRS)
    assert done.status == 2
    assert "Did you mean rewards/accuracies?" in done.err.splitlines()[-1]
    assert not done.folder.exists()
    assert train(f"--algo dpo {line} rewards/accuracies", data=PAIRS).status == 0


def test_a_metric_of_samples_is_refused_at_the_first_evaluation(train: Train, write: Callable[..., Path]) -> None:
    reward = write(
        ["def reward(completion_ids, **_):", "    return [sum(ids) / 100 for ids in completion_ids]"], "r.py"
    )
    line = "--eval_strategy steps --eval_steps 1 --eval_size 4 --save_strategy best --metric_for_best_model bleu"
    done = train(
        f"--algo rloo --max_completion_length 4 {line} --reward {reward}:reward", data=tiny.rows("prompts", 12)
    )
    assert done.status == 2
    assert "There are: " in done.err.splitlines()[-1]
    assert "reward" in done.err.splitlines()[-1]


@pytest.mark.parametrize("line", ["", "--overwrite"])
def test_the_directory_of_a_run_on_its_way_is_left_alone(train: Train, tmp_path: Path, line: str) -> None:
    pytest.importorskip("fcntl")
    with Lock(tmp_path / "out") as other:
        other.take()
        done = train(f"--algo dpo {line}", data=PAIRS)
        assert "a run is on its way there (process " in one_message(done.status, done.err)
        assert [path.name for path in done.folder.iterdir()] == ["_run.lock"]
    assert train(f"--algo dpo {line}", data=PAIRS).status == 0
    assert not list(done.folder.glob("_*"))
