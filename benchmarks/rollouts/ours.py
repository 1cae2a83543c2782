"""The run of a job by xpo, through its Python call."""

from __future__ import annotations

from typing import Any

import xpo
from benchmarks.rollouts.clock import Clock
from benchmarks.rollouts.job import Job, training_arguments
from benchmarks.rollouts.letters import letters
from xpo.feedback.sampling import sample
from xpo.train import rollouts


def train(job: Job, clock: Clock) -> None:
    """Train; a step has as many prompts as it is told."""
    vars(rollouts)["sample"] = clock.around(sample, _tokens)
    xpo.train(
        algo=job.algorithm,
        model=job.model,
        dataset=job.rows,
        reward=[letters],
        output_dir=job.output,
        per_device_train_batch_size=job.work.prompts,
        train_sampling_strategy="sequential",
        # No look at the model before and after: only the steps are compared.
        eval_prompts=0,
        sample_completions=0,
        overwrite=True,
        **training_arguments(job),
    )


def _tokens(result: Any, *_: Any, **__: Any) -> int:
    return sum(len(completion.ids) for some in result for completion in some)
