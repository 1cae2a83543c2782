"""A run that is stopped at any step and resumed ends where one that was not stopped ends, to the last bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import xpo
from tests import tiny

SETTINGS: dict[str, Any] = {
    "use_cpu": True,
    "eval_prompts": 0,
    "report_to": "none",
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 3,
    "logging_steps": 1,
    "save_steps": 1,
    "max_steps": 6,
    "reference_cache": "off",
    "adam_epsilon": 1e-6,
}
SAMPLED: dict[str, Any] = {"max_completion_length": 5, "reward": tiny.count_reward, "num_generations": 2}
LORA: dict[str, Any] = {"use_peft": True, "lora_r": 2, "lora_target_modules": ["q_proj", "v_proj"]}

RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "data": ("dpo", {}),
    "data, a reference that follows": ("dpo", {"sync_ref_model": True, "ref_model_sync_steps": 2}),
    "adapters and a reference that follows": ("dpo", {**LORA, "sync_ref_model": True, "ref_model_sync_steps": 2}),
    "fresh samples": ("rloo", SAMPLED),
    "samples used twice": ("rloo", {**SAMPLED, "num_iterations": 2}),
    "a running baseline": ("reinforce", SAMPLED),
    "mini-batches, epochs, a critic and a KL to keep": (
        "ppo",
        {**SAMPLED, "num_iterations": 2, "refresh_steps": 2, "kl_target": 0.1},
    ),
    "adapters and a critic of adapters": ("ppo", {**SAMPLED, **LORA, "refresh_steps": 3}),
    "an opponent": ("nash_md", SAMPLED),
    "pairs of samples, by rounds": ("dpo", {**SAMPLED, "online": True, "rounds": 2}),
    "adapters, by rounds": ("dpo", {**SAMPLED, **LORA, "online": True, "rounds": 3}),
    "random pairs of stale samples": (
        "simpo",
        {**SAMPLED, "online": True, "refresh_steps": 4, "online_pairs": "random", "num_generations": 3},
    ),
    "labels of samples": ("kto", {**SAMPLED, "online": True, "gradient_accumulation_steps": 2, "refresh_steps": 2}),
}


def ended(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    (file,) = folder.glob("*.safetensors")
    entries = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return load_file(file), [entry for entry in entries if "loss" in entry]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("resume")
    tiny.saved(folder / "model")

    def run(name: str, out: str, **more: Any) -> Path:
        algorithm, settings = RUNS[name]
        kind = "prompts" if settings.get("reward") else "pairs"
        data = tiny.rows(kind, 12)
        xpo.train(
            algorithm,
            model=str(folder / "model"),
            dataset=data,
            output_dir=folder / name / out,
            **{**SETTINGS, **settings, **more},
        )
        return folder / name / out

    return run


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_is_the_run_that_was_not_stopped(start: Callable[..., Path], name: str) -> None:
    whole = start(name, "whole")
    weights, history = ended(whole)
    for stop in (1, 3, 4):
        resumed = start(name, f"from-{stop}", resume_from_checkpoint=str(whole / f"checkpoint-{stop}"))
        again, told = ended(resumed)
        assert weights.keys() == again.keys()
        assert all(torch.equal(weights[key], again[key]) for key in weights), stop
        assert told[-(6 - stop) :] == history[stop:]
