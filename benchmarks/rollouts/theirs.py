"""The run of a job by TRL's own trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import torch
from trl import RLOOConfig, RLOOTrainer

from benchmarks.rollouts.clock import Clock
from benchmarks.rollouts.job import Job, training_arguments
from benchmarks.rollouts.letters import letters


def train(job: Job, clock: Clock) -> None:
    """Train as ``trl rloo`` does. Its batch counts completions."""
    rows = [json.loads(line) for line in Path(job.rows).read_text(encoding="utf-8").splitlines()]
    trainer = RLOOTrainer(
        model=job.model,
        reward_funcs=lambda **told: letters(**told),
        args=RLOOConfig(
            output_dir=job.output,
            per_device_train_batch_size=job.work.prompts * job.work.samples,
            shuffle_dataset=False,
            disable_dropout=True,
            model_init_kwargs={"dtype": "float32"},
            **training_arguments(job),
        ),
        train_dataset=datasets.Dataset.from_list(rows),
    )
    ends = trainer.processing_class.eos_token_id

    def tokens(result: torch.Tensor, **told: Any) -> int:
        """Those up to the first end of each row, with it."""
        made = result[:, told["input_ids"].shape[1] :]
        ended = (made == ends).int().cumsum(-1) - (made == ends).int()  # ends before a token
        return int((ended == 0).sum())

    trainer.model.generate = clock.around(trainer.model.generate, tokens)
    trainer.train()
