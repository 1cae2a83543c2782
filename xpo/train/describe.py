"""A run in words: the lines at its start, and its record before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xpo
from xpo.api.algorithm import Algorithm
from xpo.models.cache import LogpCache
from xpo.models.load import Policy, parameter_counts
from xpo.models.reference import Reference
from xpo.train.machine import device, git_state, versions
from xpo.train.material import Material
from xpo.train.preflight import too_long
from xpo.train.progress import say
from xpo.train.record import Cost, RunRecord
from xpo.train.settings import EMBEDDED, Settings
from xpo.train.trainer import PreferenceTrainer


def label(settings: Settings) -> str:
    """The model as people call it."""
    model = settings.source("model_name_or_path")
    if model is None:
        return EMBEDDED
    return Path(model).name if isinstance(model, str) else type(model).__name__


def introduce(
    settings: Settings,
    policy: Policy,
    reference: Reference | None,
    material: Material,
    networks: Sequence[str | None] = (),
) -> None:
    """The lines at the start: what is trained, against what, on what."""
    total, trainable = parameter_counts(policy.model)
    how = {None: "full fine-tuning", "new": "LoRA", "continued": "LoRA, continued"}[policy.adapter]
    bits = f", {policy.quantization}" if policy.quantization else ""
    say(f"model: {label(settings)}, {total:,} parameters, {trainable:,} trained ({how}{bits})")
    say(f"algorithm: {settings.run.algo}, from {settings.entry.supplier}")
    if reference is not None:
        say(f"reference: {reference.description}")
    for line in (*networks, *material.lines, too_long(policy, material), samples_of_a_step(settings), *settings.notes):
        if line is not None:
            say(line)


def samples_of_a_step(settings: Settings) -> str | None:
    """A line on how many completions a step samples, since its batch is counted in prompts; None where it has none."""
    rollout, args = settings.rollout, settings.training
    if rollout is None or rollout.num_generations is None:
        return None
    prompts = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    samples = rollout.num_generations
    return f"a step: {prompts} prompts x {samples} samples = {prompts * samples} completions"


def left_out(rows: int) -> list[str]:
    """A line on rows that no step takes; none where there are none."""
    return [f"{rows} rows a pass are left out: too few remain for the last step"] if rows else []


def make_record(
    settings: Settings, algorithm: Algorithm[Any], policy: Policy, reference: Reference | None, material: Material
) -> RunRecord:
    """The record of a run that is about to begin: what it is made of, without a result."""
    total, trainable = parameter_counts(policy.model)
    body = settings.to_dict()
    return RunRecord(
        xpo_version=xpo.__version__,
        algorithm=settings.run.algo,
        supplier=str(settings.entry.supplier),
        algorithm_settings=body.pop("algorithm"),
        settings=body,
        seed=settings.training.seed,
        model={
            "name": label(settings) if settings.testbed_model else str(policy.origin or label(settings)),
            "parameters": total,
            "trainable": trainable,
            "dtype": str(policy.model.dtype).removeprefix("torch."),
            "quantization": policy.quantization,
            "adapter": policy.adapter,
            "embedded": settings.testbed_model,
            "reads": algorithm.model,
            "auto_class": "AutoModelForCausalLM"
            if algorithm.model == "policy"
            else "AutoModelForSequenceClassification",
        },
        reference=None if reference is None else reference.description,
        data={
            "origin": material.origin,
            "embedded": material.embedded,
            "kind": settings.kind,
            "fingerprint": material.fingerprint,
            "rows": material.rows,
            "groups": len(material.train),
            "held_out": len(material.held_out),
            "lines": material.lines,
        },
        versions=versions(),
        git=git_state(),
        device=device(str(settings.training.device.type)),
        started=now(),
        output_dir=str(settings.training.output_dir),
    )


def cost_of(trainer: PreferenceTrainer, seconds: float, cache: LogpCache | None) -> Cost:
    """What training cost, over all ranks; every one must call it.

    Args:
        seconds: that training took.
        cache: of the reference, where there is one.
    """
    tokens = trainer.tokens_of_all_ranks()
    return Cost(
        sampling=trainer.sampling_of_all_ranks(),
        steps=trainer.state.global_step,
        tokens=tokens,
        seconds=seconds,
        tokens_per_second=tokens / seconds if seconds else None,
        reference_scored=None if cache is None else cache.misses,
        reference_known=None if cache is None else cache.hits,
    )


def wasted(cost: Cost) -> list[str]:
    """A line on prompts that were sampled for in vain; none where there were none."""
    sampling = cost.sampling
    if sampling is None or not sampling["dropped"]:
        return []
    return [
        f"{sampling['dropped']:,} of {sampling['prompts']:,} prompts that were sampled for taught nothing: "
        "their samples were as good as each other, or had no verdict"
    ]


def now() -> str:
    """The time in UTC, as ISO 8601 has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
