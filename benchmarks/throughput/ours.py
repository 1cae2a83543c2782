"""The run of a job by xpo, through its Python call: the only place that knows xpo's settings."""

from __future__ import annotations

from typing import Any

import xpo
from benchmarks.throughput.job import Job, model_settings, training_arguments
from xpo.plugins import load


def settings(job: Job) -> dict[str, Any]:
    """What ``xpo train`` would be given as flags, besides method, model and data."""
    chosen: dict[str, Any] = {
        **training_arguments(job),
        **model_settings(job),
        **job.method,
        **job.side,
        "output_dir": job.output,
        "max_length": job.setup.max_length,
        # No look at the model before and after: only the steps are compared.
        "eval_prompts": 0,
        "sample_completions": 0,
        "overwrite": True,
    }
    if load().algorithm(job.algorithm).cls.needs.reference:
        chosen["reference_cache"] = "disk" if job.cached else "off"
    return chosen


def train(job: Job) -> dict[str, Any]:
    """Train; what xpo itself says of the run, to check that it was the run that was meant."""
    record = xpo.train(algo=job.algorithm, model=job.model, dataset=job.rows, **settings(job))
    return {
        "tokens": record.cost.tokens,
        "layout": record.engine.get("layout"),
        "reference_scored": record.cost.reference_scored,
    }
