"""One measured run as it is handed to a fresh process, and what every side is told in the same words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Work:
    """What a step is, on every side.

    Attributes:
        prompts, samples: of a step, and of a prompt.
        tokens: longest completion.
        steps: in all, those that warm up too.
        learning_rate: so small that all steps sample much the same.
    """

    prompts: int = 16
    samples: int = 4
    tokens: int = 32
    steps: int = 12
    learning_rate: float = 1e-6
    seed: int = 42


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        library, algorithm, settings: of the side.
        model: directory of the model.
        rows: file of the prompts, in order.
        output: where the library may write.
        result: where the numbers go.
        work: what a step is.
    """

    library: Literal["trl", "xpo"]
    algorithm: str
    settings: Mapping[str, Any]
    model: str
    rows: str
    output: str
    result: str
    work: Work

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Job:
        body = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**body, "work": Work(**body["work"])})


def training_arguments(job: Job) -> dict[str, Any]:
    """Settings that TRL and xpo have under the same names."""
    return {
        "max_steps": job.work.steps,
        "gradient_accumulation_steps": 1,
        "num_generations": job.work.samples,
        "max_completion_length": job.work.tokens,
        "learning_rate": job.work.learning_rate,
        "lr_scheduler_type": "constant",
        "seed": job.work.seed,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        **job.settings,
    }
