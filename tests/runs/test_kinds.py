"""Every kind of data and of model through the command line, on a tiny model: what comes out can be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import refusals, tiny
from xpo.cli import main

BASE = ["--model", "model", "--output_dir", "out", "--use_cpu", "true"]
FAST = ["--max_steps", "2", "--eval_prompts", "0", "--sample_completions", "0", "--per_device_train_batch_size", "4"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tiny.saved(tmp_path / "model")


def write(name: str, rows: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return name


def train(*words: str, out: str = "out") -> dict[str, Any]:
    assert main(["train", *BASE, *FAST, "--output_dir", out, *words]) == 0
    record: dict[str, Any] = json.loads((Path(out) / "run.json").read_text("utf-8"))
    return record


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    return refusals.refused(["train", *BASE, *FAST, *words], capsys)


def test_demonstrations_may_be_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    data = write("text.jsonl", [{"text": f"w{number} w1 w2"} for number in range(8)])
    record = train("--algo", "sft", "--dataset", data)
    assert record["data"]["kind"] == "demonstrations"
    assert record["data"]["groups"] == 8


def test_of_pairs_the_chosen_are_demonstrations(capsys: pytest.CaptureFixture[str]) -> None:
    data = write("pairs.jsonl", tiny.rows("pairs", 8))
    train("--algo", "sft", "--dataset", data)
    assert "Of each pair the chosen completion is learned." in capsys.readouterr().err


def test_rows_to_retain_may_be_a_data_set_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    forget = write("forget.jsonl", [{**row, "other": 1} for row in tiny.rows("demonstrations", 8)])
    retain = write("retain.jsonl", tiny.rows("demonstrations", 3, seed=1))
    record = train("--algo", "npo", "--dataset", forget, "--retain_dataset", retain)
    assert {"loss/forget", "loss/retain"} <= set(record["metrics"])
    assert "3 rows, one beside every row to forget" in capsys.readouterr().err


def test_what_to_forget_must_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "split": "forget"} for row in tiny.rows("demonstrations", 8)]
    data = write("forget.jsonl", rows)
    assert "--retain_nll_weight 0" in refused(capsys, "--algo", "npo", "--dataset", data)
    kept = write("all.jsonl", [{**row, "split": "retain"} for row in rows])
    assert "none is to be forgotten" in refused(capsys, "--algo", "npo", "--dataset", kept)
    train("--algo", "npo", "--dataset", data, "--retain_nll_weight", "0")


def test_a_gold_answer_is_read_by_the_methods_that_want_one(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "reference": f" w{number} w3"} for number, row in enumerate(tiny.rows("pairs", 8))]
    record = train("--algo", "tpo", "--dataset", write("triples.jsonl", rows))
    assert record["metrics"]["nll_loss"] > 0
    without = write("pairs.jsonl", tiny.rows("pairs", 8))
    assert main(["train", "--model", "model", "--algo", "tpo", "--dataset", without, "--output_dir", "other"]) == 2
    assert "gold" in capsys.readouterr().err


def test_a_missing_number_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "score_chosen": 1.0, "score_rejected": 0.5} for row in tiny.rows("pairs", 8)]
    del rows[5]["score_rejected"]
    told = refused(capsys, "--algo", "rpo_reward_aware", "--dataset", write("scored.jsonl", rows))
    assert "scored.jsonl line 6: column 'score_rejected' is missing" in told


def test_a_reward_model_is_trained_and_judges(capsys: pytest.CaptureFixture[str]) -> None:
    data = write("pairs.jsonl", [{**row, "margin": 0.5} for row in tiny.rows("pairs", 12)])
    record = train("--algo", "bradley_terry", "--dataset", data, "--eval_size", "4", "--use_peft", out="reward")
    assert "final/accuracy" in record["metrics"]
    zero = json.loads(Path("reward/reward.json").read_text("utf-8"))
    assert zero["demonstrations"] == 4
    assert "AutoPeftModelForSequenceClassification" in Path("reward/README.md").read_text("utf-8")
    prompts = write("prompts.jsonl", tiny.rows("prompts", 8))
    rolled = train(
        "--algo", "rloo", "--dataset", prompts, "--reward", "reward", "--max_completion_length", "4", out="policy"
    )
    assert rolled["metrics"]["reward"] == pytest.approx(rolled["metrics"]["reward"])  # a number, not NaN


def test_a_sum_of_methods_says_what_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    data, replay = write("pairs.jsonl", tiny.rows("pairs", 8)), write("text.jsonl", [{"text": "w1 w2 w3"}])
    words = ["--algo", "dpo + 0.2*sft", "--dataset", data, "--dpo.beta", "0.3"]
    record = train(*words, "--replay_dataset", replay, "--replay_coef", "0.5")
    assert record["algorithm"] == "dpo + 0.2*sft"
    assert record["algorithm_settings"]["dpo.beta"] == 0.3
    assert {"loss/dpo", "loss/sft", "loss/replay", "sft/nll_loss", "rewards/margins"} <= set(record["metrics"])
    card = Path("out/README.md").read_text("utf-8")
    assert "[dpo: L = mean over pairs" in card


def test_rollouts_learn_again_what_rides_along(capsys: pytest.CaptureFixture[str]) -> None:
    prompts, replay = write("prompts.jsonl", tiny.rows("prompts", 8)), write("text.jsonl", [{"text": "w1 w2 w3"}])
    Path("rewards.py").write_text("def short(completions, **_):\n    return [-float(len(c)) for c in completions]\n")
    record = train(
        *("--algo", "rloo", "--dataset", prompts, "--reward", "rewards.py:short", "--max_completion_length", "4"),
        *("--replay_dataset", replay, "--replay_coef", "27.8"),
    )
    assert record["metrics"]["loss/replay"] == pytest.approx(27.8 * record["metrics"]["replay/nll_loss"], rel=1e-4)
