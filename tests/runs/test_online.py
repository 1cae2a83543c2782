"""Learning from samples as a user asks for it: --online, judges of all kinds, rounds, looks, and what goes wrong."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.feedback.test_judge_http import Service, chat
from tests.refusals import one_message
from tests.runs.conftest import Done, Train

PROMPTS = tiny.rows("prompts", 8)
FUNCTIONS = """
calls = []

def low(completion_ids, **_):
    return [sum(1 - token / 40 for token in ids) / 4 for ids in completion_ids]

def shorter(prompts, completions, **_):
    return [1.0 if len(a) < len(b) else 0.0 if len(a) > len(b) else None for a, b in completions]

def never(prompts, completions, **_):
    return [None for _ in completions]

def same(completion_ids, **_):
    return [0.5 for _ in completion_ids]

def broken(prompts, completions, **_):
    raise RuntimeError("out of coffee")

def certain(prompts, completions, **_):
    return [1.5 for _ in completions]

def nan(completion_ids, **_):
    return [float("nan") for _ in completion_ids]

def few(completion_ids, **_):
    return [0.0]
"""

Online = Callable[..., Done]


@pytest.fixture
def online(train: Train, tmp_path: Path) -> Online:
    """``online("dpo", "shorter")`` with a judge; ``reward="low"`` with a reward instead."""
    (tmp_path / "functions.py").write_text(FUNCTIONS)

    def run(algo: str, judge: str | None = None, line: str = "", reward: str | None = None, **more: Any) -> Done:
        if judge is not None:
            line += (
                f" --judge {tmp_path / 'functions.py'}:{judge}" if f"def {judge}(" in FUNCTIONS else f" --judge {judge}"
            )
        if reward is not None:
            line += f" --reward {tmp_path / 'functions.py'}:{reward}"
        line += " --max_completion_length 6"
        return train(f"--algo {algo} {line}", **{"data": PROMPTS, **more})

    return run


def moved(done: Done, model: Path) -> bool:
    before, after = load_file(model / "model.safetensors"), load_file(done.folder / "model.safetensors")
    return any(not torch.equal(before[name], after[name]) for name in after)


@pytest.mark.parametrize("algo", ["dpo", "simpo", "kto", "lipo", "sppo", "dno"])
def test_methods_of_data_learn_from_samples(online: Online, model: Path, algo: str) -> None:
    done = online(algo, line="--online", reward="low")
    assert done.status == 0, done.err
    assert moved(done, model)
    assert done.record.data["kind"] == "rollouts"
    sampling = done.record.cost.sampling
    assert sampling is not None
    assert sampling["prompts"] == 8
    assert sampling["tokens"] > 0
    assert {"reward", "finished", "length"} <= set(done.history[0])


@pytest.mark.parametrize(
    "algo", ["dpo --online", "rloo", "spo", "nash_md", "exploratory", "online_dpo", "kto --online"]
)
def test_a_judge_takes_the_place_of_rewards(online: Online, model: Path, algo: str) -> None:
    done = online(algo, "shorter")
    assert done.status == 0, done.err
    assert moved(done, model)
    assert "the judge was asked" in done.err
    assert done.history[0]["judge/asked"] > 0
    assert 0 <= done.history[0]["reward"] <= 1


def test_a_policy_judges_itself(online: Online) -> None:
    done = online("dpo --online", "self", "--max_steps 1", base=None, data="testbed")
    assert done.status == 0, done.err
    assert "the order of the two changed who wins" in done.err
    assert done.history[0]["judge/tokens"] > 0


def test_of_pairs_only_the_prompts_are_used(online: Online) -> None:
    done = online("dpo", line="--online", reward="low", data=tiny.rows("pairs", 8))
    assert done.status == 0, done.err
    assert done.record.data["kind"] == "rollouts"


def test_looks_at_samples(online: Online) -> None:
    line = "--online --log_completions --log_completions_steps 2 --num_completions_to_print 2"
    done = online("dpo", line=line, reward="low")
    assert done.status == 0, done.err
    entries = [json.loads(text) for text in (done.folder / "completions.jsonl").read_text().splitlines()]
    assert {entry["step"] for entry in entries} == {1, 2}
    assert {entry["role"] for entry in entries} == {"chosen", "rejected"}
    assert all(len({entry["row"] for entry in entries if entry["step"] == step}) <= 2 for step in (1, 2))
    pairs = [(a["score"], b["score"]) for a, b in zip(entries[::2], entries[1::2], strict=True)]
    assert all(better > worse for better, worse in pairs)
    assert "samples at step 1" in done.err


@pytest.mark.parametrize("algo", ["dpo", "kto", "lipo", "bco"])
def test_samples_that_are_alike_teach_nothing_and_move_nothing(online: Online, model: Path, algo: str) -> None:
    done = online(algo, line="--online --weight_decay 0.1", reward="same")
    assert done.status == 0, done.err
    assert not moved(done, model)
    assert "8 of 8 prompts that were sampled for taught nothing" in done.err


def test_rounds_move_the_reference(online: Online) -> None:
    line = "--online --rounds 2 --max_steps 4 --learning_rate 1e-2"
    moving = online("dpo", line=line, reward="low", out="moving")
    kept = online("dpo", line=f"{line} --round_reference kept", reward="low", out="kept")
    assert moving.status == kept.status == 0, moving.err + kept.err
    margins = [[abs(entry["rewards/margins"]) for entry in done.history if "loss" in entry] for done in (moving, kept)]
    assert margins[0][:2] == margins[1][:2]
    assert margins[0][2] == pytest.approx(0.0, abs=1e-5)  # the reference is the policy again
    assert margins[1][2] > 1e-3
    assert "follows the policy" in moving.err


@pytest.mark.parametrize(("reference", "moved_to"), [("policy", True), ("kept", False)])
def test_a_round_does_what_it_says_beside_a_reference_that_follows(
    online: Online, reference: str, moved_to: bool
) -> None:
    line = "--online --rounds 2 --max_steps 4 --learning_rate 1e-2 --sync_ref_model --ref_model_mixup_alpha 0.1"
    done = online("dpo", line=f"{line} --ref_model_sync_steps 100 --round_reference {reference}", reward="low")
    assert done.status == 0, done.err
    margins = [abs(entry["rewards/margins"]) for entry in done.history if "loss" in entry]
    assert (margins[2] < 1e-5) == moved_to


@pytest.mark.parametrize(
    ("algo", "judge", "line", "reward", "message"),
    [
        ("dpo", "never", "--online", None, "came to no verdict on any of"),
        ("dpo", "broken", "--online", None, "judge 'broken' raised RuntimeError: out of coffee"),
        ("dpo", "certain", "--online", None, "judge 'certain' returned 1.5"),
        ("rloo", None, "", "nan", "rewards must be finite"),
        ("rloo", None, "", "few", "returned 1 numbers for"),
        ("dpo", "shorter", "", None, "is for methods that sample completions while training"),
        ("rloo", None, "--online", "low", "samples while it trains anyway"),
        ("bradley_terry", None, "--online", "low", "only a policy has samples of its own"),
        ("npo", None, "--online", "low", "learns from forget data"),
        ("tpo", None, "--online", "low", "which nobody samples"),
        ("dpo", "shorter", "--online", "low", "both say what samples are worth"),
        ("dpo", None, "--online", None, "give --reward a name"),
        ("dpo", "selv", "--online", None, "Did you mean 'self'"),
        ("dpo", "openai:gpt", "--online", None, "--judge_url"),
        ("dpo", "shorter", "--online --missing_eos_score -1", None, "a judge gives none"),
        ("dpo", None, "--online --judge_timeout 3", "low", "--judge_timeout has no effect without --judge"),
        ("dpo", "shorter", "--online --judge_timeout 3", None, "asks no server"),
        ("dpo", "self", "--online --judge_retries 1", None, "asks no server"),
        ("dpo", None, "--online --round_reference kept", "low", "has no effect without --rounds"),
        ("simpo", None, "--online --rounds 2 --round_reference mixed", "low", "uses no reference"),
        ("simpo", None, "--online --sync_ref_model", "low", "uses no reference"),
        ("dpo", None, "--online --ref_model_mixup_alpha 0.5", "low", "has no effect without --sync_ref_model"),
        ("kto", None, "--online --online_pairs all", "low", "is for methods that learn from pairs"),
        ("dpo", None, "--online --label_threshold 1", "low", "is for methods that learn from labels"),
        ("rloo", None, "--top_k 5", "low", "compares the log-probabilities of samples"),
        ("nash_md", None, "--top_p 0.9", "low", "compares the log-probabilities of samples"),
        ("rloo", None, "--top_p 0", "low", "must be above 0"),
        ("exploratory", None, "--num_generations 4", "low", "--num_generations"),
        ("spo", None, "--num_generations 1", "low", "compares completions and needs 2"),
        ("rloo", None, "--use_vllm", "low", "needs a server"),
        ("rloo", None, "--use_vllm --vllm_server_base_url http://localhost:9", "low", "not installed: vllm"),
        ("nash_md", None, "--use_vllm --vllm_server_base_url http://localhost:9", "low", "samples from the reference"),
        ("rloo", None, "--value_model x", "low", "is for methods with a value model"),
        ("rloo", None, "--log_completions_steps 5", "low", "has no effect without --log_completions"),
        ("rloo", None, "--missing_eos_score 0 --missing_eos_penalty 1", "low", "give one of them"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    online: Online, algo: str, judge: str | None, line: str, reward: str | None, message: str
) -> None:
    done = online(algo, judge, line, reward)
    assert message in one_message(done.status, done.err)
    assert not done.folder.exists()


def test_truncated_sampling_where_no_ratio_is_needed(online: Online) -> None:
    for algo in ("raft", "dpo --online", "online_dpo"):
        done = online(algo, line="--top_k 3 --top_p 0.9 --overwrite", reward="low")
        assert done.status == 0, done.err


def test_a_server_judges_and_what_it_fails_at_costs_no_run(online: Online, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    service, turn = Service(), count()

    def act(body: Any) -> tuple[Any, ...]:
        number = next(turn)
        if number % 7 == 3:
            time.sleep(1.0)
        return (500, b"") if number % 5 == 2 else (200, chat("12"[number % 2]))

    service.act = act
    threading.Thread(target=service.server.serve_forever, daemon=True).start()
    line = f"--judge_url {service.url} --judge_retries 0 --judge_timeout 0.4 --judge_concurrency 1 --num_generations 4"
    done = online("dpo --online", "openai:tiny", line)
    service.server.shutdown()
    assert done.status == 0, done.err
    assert "had no verdict and taught nothing" in done.err
    assert "timeout" in done.err
    assert "500" in done.err
    assert sum(entry.get("judge/tokens", 0) for entry in done.history) > 0
    assert len(service.seen) > 8


def test_a_preference_model_judges(online: Online, train: Train) -> None:
    made = train("--algo preference_model", data=tiny.rows("pairs", 8), out="judge")
    assert made.status == 0, made.err
    done = online("dpo --online", str(made.folder))
    assert done.status == 0, done.err
    assert done.history[0]["judge/asked"] > 0
    assert "preference" in (made.folder / "run.json").read_text()


def test_four_networks_on_one_backbone(online: Online, train: Train, model: Path) -> None:
    lora = "--use_peft --lora_r 2 --lora_target_modules q_proj v_proj"
    made = train(f"--algo bradley_terry {lora}", data=tiny.rows("pairs", 8), out="reward")
    assert made.status == 0, made.err
    done = online("ppo", line=f"{lora} --reward {made.folder}")
    assert done.status == 0, done.err
    assert "on the policy's own" in done.err or "shares" in done.err, done.err
    separate = online("ppo", line=f"--reward {made.folder} --value_model {model}", out="separate")
    assert separate.status == 0, separate.err
