"""The run of a job by TRL's own trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
from trl import (
    DPOConfig,
    DPOTrainer,
    KTOConfig,
    KTOTrainer,
    ModelConfig,
    get_peft_config,
    get_quantization_config,
)

from benchmarks.throughput.job import Job, model_settings, training_arguments

TRAINERS: dict[str, tuple[Any, Any]] = {"dpo": (DPOTrainer, DPOConfig), "kto": (KTOTrainer, KTOConfig)}


def train(job: Job) -> None:
    """Train as ``trl dpo`` and ``trl kto`` do."""
    trainer_class, config_class = TRAINERS[job.algorithm]
    model = ModelConfig(model_name_or_path=job.model, **model_settings(job))
    init: dict[str, Any] = {"dtype": model.dtype}
    if model.attn_implementation is not None:
        init["attn_implementation"] = model.attn_implementation
    rows = [json.loads(line) for line in Path(job.rows).read_text(encoding="utf-8").splitlines()]
    trainer = trainer_class(
        model=job.model,
        args=config_class(
            output_dir=job.output,
            max_length=job.setup.max_length,
            model_init_kwargs=init,
            disable_dropout=True,
            **{"precompute_ref_log_probs": False, **job.side},
            **job.method,
            **training_arguments(job),
        ),
        train_dataset=datasets.Dataset.from_list(rows),
        quantization_config=get_quantization_config(model),
        peft_config=get_peft_config(model),
    )
    trainer.train()
    if job.held_out is not None:
        trainer.save_model(job.output)
