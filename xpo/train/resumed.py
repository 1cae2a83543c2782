"""What a run that goes on from a checkpoint was told otherwise than the run that wrote it: said before it trains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from xpo.train.output import write_text
from xpo.train.ranks import announced
from xpo.train.settings import Settings

#: In every checkpoint: what the run was told that wrote it.
TOLD = "settings.json"
#: What the optimiser's state holds: it stays what it was.
KEPT = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
_TRAINING = (
    *("optim", "lr_scheduler_type", "warmup_steps", "max_grad_norm", "seed", "data_seed", "bf16", "fp16"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", *KEPT),
)
#: What a result does not depend on, or what the rows themselves say.
_ASIDE = {
    *("algo", "overwrite", "sample_completions", "eval_prompts", "eval_dataset", "eval_size", "reference_cache"),
    *("dataset_name", "dataset_config", "dataset_train_split", "dataset_test_split", "retain_dataset"),
    *("log_completions", "log_completions_steps", "num_completions_to_print"),
    *("judge_url", "judge_timeout", "judge_retries", "judge_concurrency", "vllm_server_base_url"),
}


def told(settings: Settings, fingerprint: str) -> dict[str, Any]:
    """What decides the result of a run, by the name of the setting.

    Args:
        fingerprint: of the rows to learn from.
    """
    body = settings.to_dict()
    sections = (body["run"], body["rollout"] or {}, body["model"], body["algorithm"])
    named = {name: value for section in sections for name, value in section.items() if name not in _ASIDE}
    training = {name: body["training"].get(name) for name in _TRAINING}
    return {**named, **training, **body["objects"], "data": fingerprint, "processes": announced()}


class Telling(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Puts into every checkpoint what the run was told."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        self.told = told

    def on_save(self, args: Any, state: Any, *arguments: object, **keywords: object) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if folder.is_dir():
            write_text(folder / TOLD, json.dumps(self.told, indent=1, ensure_ascii=False) + "\n")


def otherwise(checkpoint: Path, now: Mapping[str, Any]) -> list[str]:
    """Lines on what differs from the run that wrote a checkpoint; none where nothing does, or it does not say."""
    file = checkpoint / TOLD
    if not file.exists():
        return []
    before = json.loads(file.read_text(encoding="utf-8"))
    differing = [name for name in now if name in before and before[name] != now[name]]
    changed = [_change(name, before[name], now[name]) for name in differing if name not in KEPT]
    kept = [f"--{name} {before[name]} (not {now[name]})" for name in differing if name in KEPT]
    lines = []
    if changed:
        lines.append(f"resumed: other than in the run that wrote the checkpoint are {', '.join(changed)}")
    if kept:
        lines.append(
            f"resumed: {', '.join(kept)} stays, since the optimiser goes on from its state; to change it, start from "
            f"the weights with --model_name_or_path {checkpoint}"
        )
    return lines


def _change(name: str, before: Any, now: Any) -> str:
    if name == "data":
        return "the rows to learn from"
    if name == "processes":
        return f"the number of processes, {now} (was {before})"
    if name == "model_name_or_path":
        return f"--{name} {now} (was {before}; the trained weights stay those of the checkpoint)"
    return f"--{name} {now} (was {before})"
