"""One measured run as it is handed to a fresh process, and what both libraries are told in the same words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Setup:
    """What all runs of a record have in common."""

    device: str = "cpu"
    dtype: str = "float32"
    load_in_4bit: bool = False
    attn_implementation: str | None = None
    checkpointing: bool = False
    max_length: int = 1024
    seed: int = 42
    rank: int = 16


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        library: whose trainer runs.
        algorithm: xpo's name of the method.
        model: directory of the model.
        rows: file of the rows, in order.
        output: where the library may write.
        result: where the numbers go.
        setup: what all runs have in common.
        side: settings of this side.
        method: settings of the method.
        batch, steps, lora, learning_rate, schedule: of the case; without ``steps`` the run is one epoch.
        cached: whether there is a reference cache.
        held_out: tokens of held-out pairs to judge the result by, if any.
    """

    library: Literal["trl", "xpo"]
    algorithm: str
    model: str
    rows: str
    output: str
    result: str
    setup: Setup
    side: Mapping[str, Any]
    method: Mapping[str, Any]
    batch: int
    steps: int | None
    lora: bool
    learning_rate: float
    schedule: str
    cached: bool = False
    held_out: str | None = None

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Job:
        body = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**body, "setup": Setup(**body["setup"])})


def training_arguments(job: Job) -> dict[str, Any]:
    """Arguments of ``transformers.TrainingArguments``, which both libraries have under the same names."""
    length = {"num_train_epochs": 1} if job.steps is None else {"max_steps": job.steps}
    setup = job.setup
    return {
        **length,
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": 1,
        "train_sampling_strategy": "sequential",
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": job.schedule,
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": setup.seed,
        "use_cpu": setup.device == "cpu",
        "bf16": setup.device != "cpu" and setup.dtype == "bfloat16",
        "gradient_checkpointing": setup.checkpointing,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
    }


def model_settings(job: Job) -> dict[str, Any]:
    """Arguments of TRL's ``ModelConfig``, which xpo takes too: how to load the model, and its adapters."""
    setup = job.setup
    settings: dict[str, Any] = {"dtype": setup.dtype}
    if setup.attn_implementation is not None:
        settings["attn_implementation"] = setup.attn_implementation
    if setup.load_in_4bit:
        settings["load_in_4bit"] = True
    if job.lora:
        settings |= {"use_peft": True, "lora_r": setup.rank, "lora_alpha": 2 * setup.rank, "lora_dropout": 0.0}
        settings["lora_target_modules"] = ["all-linear"]
    return settings
