"""What can be wrong with settings that are each right by themselves: found before anything is loaded."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from xpo.compat import get_available_reporting_integrations
from xpo.errors import SettingError
from xpo.feedback.judges import RUBRIC, SERVED
from xpo.feedback.vllm import check_vllm
from xpo.train.settings import SAMPLES, Settings
from xpo.train.sources import Given

_POSITIVE = ("must be positive", lambda value: value > 0)
_NOT_NEGATIVE = ("must not be negative", lambda value: value >= 0)
_SHARE = ("must be at least 0 and below 1", lambda value: 0 <= value < 1)

_RANGES: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "max_length": _POSITIVE,
    "max_prompt_length": _POSITIVE,
    "eval_size": _POSITIVE,
    "num_iterations": _POSITIVE,
    "sample_completions": _NOT_NEGATIVE,
    "eval_prompts": _NOT_NEGATIVE,
    "num_generations": _POSITIVE,
    "max_completion_length": _POSITIVE,
    "temperature": _POSITIVE,
    "missing_eos_penalty": _NOT_NEGATIVE,
    "top_k": _POSITIVE,
    "top_p": ("must be above 0 and at most 1", lambda value: 0 < value <= 1),
    "judge_timeout": _POSITIVE,
    "judge_retries": _NOT_NEGATIVE,
    "judge_concurrency": _POSITIVE,
    "refresh_steps": _POSITIVE,
    "rounds": _POSITIVE,
    "log_completions_steps": _POSITIVE,
    "num_completions_to_print": _POSITIVE,
    "ref_model_mixup_alpha": ("must be above 0 and at most 1", lambda value: 0 < value <= 1),
    "ref_model_sync_steps": _POSITIVE,
    "per_device_train_batch_size": _POSITIVE,
    "per_device_eval_batch_size": _POSITIVE,
    "gradient_accumulation_steps": _POSITIVE,
    "num_train_epochs": _POSITIVE,
    "max_steps": ("must be positive, or -1 to go by --num_train_epochs", lambda value: value > 0 or value == -1),
    "learning_rate": ("must be a number that is not negative", lambda value: 0 <= value < math.inf),
    "weight_decay": _NOT_NEGATIVE,
    "max_grad_norm": _NOT_NEGATIVE,
    "lora_r": _POSITIVE,
    "lora_alpha": _POSITIVE,
    "lora_dropout": _SHARE,
}

_ADAPTER = (
    *("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters"),
    *("lora_modules_to_save", "use_rslora", "use_dora"),
)
_LOADING = ("dtype", "attn_implementation", "model_revision", "trust_remote_code", "load_in_4bit", "load_in_8bit")

#: A setting that means nothing without another: name -> the other.
_REQUIRES: Mapping[str, str] = {
    **dict.fromkeys(_ADAPTER, "use_peft"),
    **dict.fromkeys(("bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage"), "load_in_4bit"),
    **dict.fromkeys(("hub_model_id", "hub_strategy", "hub_private_repo", "hub_revision"), "push_to_hub"),
    **dict.fromkeys(("dataset_config", "dataset_train_split", "dataset_test_split"), "dataset_name"),
    "model_revision": "model_name_or_path",
    "reward_weights": "reward",
    **dict.fromkeys(("judge_url", "judge_timeout", "judge_retries", "judge_concurrency", "judge_template"), "judge"),
    **dict.fromkeys(("log_completions_steps", "num_completions_to_print"), "log_completions"),
    "vllm_server_base_url": "use_vllm",
    "ref_model_sync_steps": "sync_ref_model",
}


def check(settings: Settings, by: Mapping[str, Given]) -> None:
    """Refuse settings that contradict each other or cannot be honoured together.

    Args:
        by: who made each setting that is not at its default, to name it in a message as it was written.

    Raises:
        SettingError: the first contradiction.
    """
    _ranges(settings, by)
    _requirements(settings, by)
    _data(settings, by)
    _model(settings, by)
    _loop(settings)
    _following(settings, by)
    if settings.run.online:
        _online(settings, by)
    if settings.rollout is not None:
        _rollouts(settings, by)
        _feedback(settings, by)
        _sampling(settings, by)


def _label(name: str, by: Mapping[str, Given]) -> str:
    return by[name].label if name in by else f"--{name}"


def _ranges(settings: Settings, by: Mapping[str, Given]) -> None:
    for name, (rule, holds) in _RANGES.items():
        if hasattr(settings.algorithm, name):
            continue  # the method's own, and its own to check
        value = settings.source(name)
        if value is not None and not holds(value):
            raise SettingError(f"{_label(name, by)} {rule}, not {value}")


def _requirements(settings: Settings, by: Mapping[str, Given]) -> None:
    for name, other in _REQUIRES.items():
        if name in by and not settings.source(other):
            raise SettingError(f"{by[name].label} has no effect without {by[name].spell(other)}; give both or neither")


def _data(settings: Settings, by: Mapping[str, Given]) -> None:
    run, data = settings.run, settings.entry.cls.data
    if settings.source("eval_dataset") is not None and run.eval_size is not None:
        raise SettingError(
            f"{_label('eval_dataset', by)} and {_label('eval_size', by)} both say what to evaluate on; give one of them"
        )
    if run.max_length is not None and run.max_prompt_length is not None and run.max_prompt_length >= run.max_length:
        raise SettingError(
            f"{_label('max_prompt_length', by)} {run.max_prompt_length} leaves no room for a completion within "
            f"max_length {run.max_length}"
        )
    if "forget_column" in by and data != "forget":
        raise SettingError(f"{by['forget_column'].label} is for methods that unlearn; {run.algo} learns from {data}")
    if settings.source("retain_dataset") is not None:
        if data != "forget":
            raise SettingError(
                f"{_label('retain_dataset', by)} is for methods that unlearn; {run.algo} learns from {data}"
            )
        if run.forget_column is not None:
            raise SettingError(
                f"{_label('retain_dataset', by)} and {_label('forget_column', by)} both say what to retain; give one"
            )
    sampled = data == "rollouts"
    if run.sft_coef and (sampled or settings.entry.cls.model != "policy"):
        why = "what is sampled is nothing to imitate" if sampled else "a reward model has no likelihood"
        raise SettingError(
            f"{_label('sft_coef', by)}: {why}; drop it"
            + (", or give demonstrations with --replay_dataset" if sampled else "")
        )
    if "lists_to_pairs" in by and data != "pairs":
        label = by["lists_to_pairs"].label
        raise SettingError(f"{label} is for methods that learn from pairs; {run.algo} learns from {data}")


def _model(settings: Settings, by: Mapping[str, Given]) -> None:
    model, name = settings.model, settings.model.model_name_or_path
    if model.lora_task_type != "CAUSAL_LM":
        raise SettingError(f"{_label('lora_task_type', by)} must be CAUSAL_LM, for a language model")
    if (model.load_in_4bit or model.load_in_8bit) and not model.use_peft:
        quantised = "load_in_4bit" if model.load_in_4bit else "load_in_8bit"
        raise SettingError(f"{_label(quantised, by)}: quantised weights cannot be trained; train adapters: --use_peft")
    if "model_name_or_path" in settings.objects:
        _no_effect(by, _LOADING, "the model is passed as an object, already loaded")
    elif name is not None and (Path(name) / "adapter_config.json").is_file():
        _no_effect(by, _ADAPTER, f"{name} is an adapter with its own settings, and its training goes on")
    if settings.source("reference_model") is not None and not settings.make_algorithm().needs.reference:
        raise SettingError(f"{_label('reference_model', by)}: {settings.run.algo}, set like this, uses no reference")


def _no_effect(by: Mapping[str, Given], names: Iterable[str], why: str) -> None:
    for name in names:
        if name in by:
            raise SettingError(f"{by[name].label} has no effect here: {why}")


def _loop(settings: Settings) -> None:
    training, least = settings.training, settings.make_algorithm().needs.least
    processes = max(1, int(os.environ.get("WORLD_SIZE", "1")))
    held = training.per_device_train_batch_size * processes
    if held < least:
        raise SettingError(
            f"{settings.run.algo} computes statistics of a micro-batch and needs {least} rows in one; "
            f"--per_device_train_batch_size {training.per_device_train_batch_size} on {processes} process(es) holds "
            f"{held}. Set --per_device_train_batch_size {math.ceil(least / processes)}"
        )
    absent = [name for name in training.report_to or () if name not in get_available_reporting_integrations()]
    if absent:
        raise SettingError(f"--report_to {absent[0]}: not installed or unknown; install it, or give --report_to none")
    accelerator = training.accelerator_config
    if accelerator.split_batches or accelerator.dispatch_batches or not accelerator.even_batches:
        raise SettingError(
            "--accelerator_config: split_batches, dispatch_batches and even_batches cannot be honoured: "
            "xpo deals the rows of a step out to the processes itself"
        )


def _following(settings: Settings, by: Mapping[str, Given]) -> None:
    run, rollout, needs = settings.run, settings.rollout, settings.make_algorithm().needs
    if run.sync_ref_model and not needs.reference:
        raise SettingError(f"{_label('sync_ref_model', by)}: {run.algo}, set like this, uses no reference")
    mixed = rollout is not None and rollout.rounds > 1 and rollout.round_reference == "mixed"
    if "ref_model_mixup_alpha" in by and not (run.sync_ref_model or mixed):
        given = by["ref_model_mixup_alpha"]
        raise SettingError(f"{given.label} has no effect without {given.spell('sync_ref_model')}; give both or neither")
    if "round_reference" in by:
        label = by["round_reference"].label
        if rollout is not None and rollout.rounds == 1:
            raise SettingError(f"{label} has no effect without {by['round_reference'].spell('rounds')}; give both")
        if not needs.reference:
            raise SettingError(f"{label}: {run.algo}, set like this, uses no reference")
    if "value_model" in by and not needs.values:
        raise SettingError(f"{by['value_model'].label} is for methods with a value model; {run.algo} has none")


def _online(settings: Settings, by: Mapping[str, Given]) -> None:
    cls, algo, label = settings.entry.cls, settings.run.algo, _label("online", by)
    if cls.data == "rollouts":
        raise SettingError(f"{label}: {algo} samples while it trains anyway; leave the flag out")
    if cls.model != "policy":
        raise SettingError(f"{label}: {algo} trains a {cls.model} model, and only a policy has samples of its own")
    if cls.data not in SAMPLES:
        raise SettingError(
            f"{label} is for methods that learn from {', '.join(SAMPLES)}; {algo} learns from {cls.data} data"
        )
    if cls.extras:
        raise SettingError(
            f"{label}: {algo} also reads completions in the columns {', '.join(cls.extras)}, which nobody samples"
        )


def _rollouts(settings: Settings, by: Mapping[str, Given]) -> None:
    rollout, needs, data = settings.rollout, settings.make_algorithm().needs, settings.entry.cls.data
    assert rollout is not None
    if rollout.num_generations is None:
        rollout.num_generations = needs.samples or SAMPLES[data]
    compared = data != "rollouts" or needs.samples > 1 or (needs.wins is not None and needs.opponent is None)
    if rollout.num_generations < 2 and compared:
        raise SettingError(f"{_label('num_generations', by)}: {settings.run.algo} compares completions and needs 2")
    if needs.opponent is not None and needs.opponent.trained and rollout.num_generations != needs.samples:
        raise SettingError(
            f"{_label('num_generations', by)}: {settings.run.algo} compares {needs.samples} completion of the policy's "
            f"with {needs.opponent.samples} of its opponent's; leave the flag out"
        )
    for name, kind in (("online_pairs", "pairs"), ("label_threshold", "labels")):
        if name in by and data != kind:
            raise SettingError(
                f"{by[name].label} is for methods that learn from {kind}; {settings.run.algo} learns from {data}"
            )


def _feedback(settings: Settings, by: Mapping[str, Given]) -> None:
    rollout, rewards, judge = settings.rollout, settings.source("reward"), settings.source("judge")
    assert rollout is not None
    if not rewards and judge is None and not settings.testbed_data:
        raise SettingError(
            f"{settings.run.algo} needs to hear what the completions it samples are worth: give --reward a name from "
            "`xpo plugins`, module:function, file.py:function, or a reward model; or give --judge"
        )
    if rewards and judge is not None:
        raise SettingError(
            f"{_label('reward', by)} and {_label('judge', by)} both say what samples are worth; give one of them"
        )
    if isinstance(judge, str) and not judge.removeprefix(RUBRIC).startswith(SERVED):
        _no_effect(by, ("judge_timeout", "judge_retries", "judge_concurrency"), f"{judge} asks no server")
    weights = rollout.reward_weights
    if weights is not None and len(weights) != len(rewards):
        raise SettingError(
            f"{_label('reward_weights', by)} has {len(weights)} numbers for {len(rewards)} rewards; give one for each"
        )
    if rollout.missing_eos_score is not None:
        if judge is not None:
            raise SettingError(f"{_label('missing_eos_score', by)} is a reward, and a judge gives none; drop it")
        if rollout.missing_eos_penalty is not None:
            raise SettingError(
                f"{_label('missing_eos_score', by)} takes the place of a reward, and "
                f"{_label('missing_eos_penalty', by)} lowers it; give one of them"
            )


def _sampling(settings: Settings, by: Mapping[str, Given]) -> None:
    rollout, needs = settings.rollout, settings.make_algorithm().needs
    assert rollout is not None
    for name in ("top_k", "top_p"):
        if name in by and needs.ratios and settings.entry.cls.data == "rollouts":
            raise SettingError(
                f"{by[name].label}: {settings.run.algo} compares the log-probabilities of samples with those they were "
                "drawn by, and the distribution that is left after cutting is another one; --temperature shapes both"
            )
    if rollout.use_vllm:
        if needs.opponent is not None:
            raise SettingError(
                f"{_label('use_vllm', by)}: {settings.run.algo} also samples from the reference, which the server has "
                "not; leave the flag out"
            )
        if rollout.vllm_server_base_url is None:
            raise SettingError(
                f"{_label('use_vllm', by)} needs a server: start `VLLM_SERVER_DEV_MODE=1 vllm serve MODEL "
                '--weight-transfer-config \'{"backend": "nccl"}\'` and give its address as --vllm_server_base_url '
                "http://localhost:8000"
            )
        if settings.training.fsdp or settings.training.deepspeed:
            raise SettingError(
                f"{_label('use_vllm', by)}: the server is sent whole weights, and --fsdp and --deepspeed spread them "
                "over processes; leave one of them out"
            )
        check_vllm()
