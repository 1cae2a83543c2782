"""What can be wrong with settings that are each right by themselves: found before anything is loaded."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from xpo.compat import get_available_reporting_integrations
from xpo.errors import SettingError
from xpo.train.rollout_checks import check_rollouts
from xpo.train.rules import NOT_NEGATIVE, POSITIVE, SHARE, By, Rule, check_needed, check_rules, named, refuse
from xpo.train.settings import Settings

_RULES: Mapping[str, Rule] = {
    "max_length": POSITIVE,
    "max_prompt_length": POSITIVE,
    "eval_size": POSITIVE,
    "num_iterations": POSITIVE,
    "sample_completions": NOT_NEGATIVE,
    "eval_prompts": NOT_NEGATIVE,
    "num_generations": POSITIVE,
    "max_completion_length": POSITIVE,
    "temperature": POSITIVE,
    "missing_eos_penalty": NOT_NEGATIVE,
    "top_k": POSITIVE,
    "top_p": SHARE,
    "judge_timeout": POSITIVE,
    "judge_retries": NOT_NEGATIVE,
    "judge_concurrency": POSITIVE,
    "refresh_steps": POSITIVE,
    "rounds": POSITIVE,
    "log_completions_steps": POSITIVE,
    "num_completions_to_print": POSITIVE,
    "ref_model_mixup_alpha": SHARE,
    "ref_model_sync_steps": POSITIVE,
    "per_device_train_batch_size": POSITIVE,
    "per_device_eval_batch_size": POSITIVE,
    "gradient_accumulation_steps": POSITIVE,
    "num_train_epochs": POSITIVE,
    "max_steps": ("must be positive, or -1 to go by --num_train_epochs", lambda value: value > 0 or value == -1),
    "learning_rate": ("must be a number that is not negative", lambda value: 0 <= value < math.inf),
    "weight_decay": NOT_NEGATIVE,
    "max_grad_norm": NOT_NEGATIVE,
    "lora_r": POSITIVE,
    "lora_alpha": POSITIVE,
    "lora_dropout": ("must be at least 0 and below 1", lambda value: 0 <= value < 1),
}

_ADAPTER = (
    *("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters"),
    *("lora_modules_to_save", "use_rslora", "use_dora"),
)
_LOADING = ("dtype", "attn_implementation", "model_revision", "trust_remote_code", "load_in_4bit", "load_in_8bit")

#: A setting that means nothing without another: name -> the other.
_REQUIRES: Mapping[str, str] = {
    **dict.fromkeys((*_ADAPTER, "lora_task_type"), "use_peft"),
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


def check(settings: Settings, by: By) -> None:
    """Refuse settings that contradict each other or cannot be honoured together.

    Args:
        by: who made each setting that is not at its default, to name it in a message as it was written.

    Raises:
        SettingError: the first contradiction.
    """
    own = settings.algorithm  # has its own rules for what is its own
    check_rules({name: rule for name, rule in _RULES.items() if not hasattr(own, name)}, settings.source, by)
    check_needed(_REQUIRES, settings.source, by)
    _data(settings, by)
    _model(settings, by)
    _loop(settings)
    _following(settings, by)
    check_rollouts(settings, by)


def _data(settings: Settings, by: By) -> None:
    run, data = settings.run, settings.entry.cls.data
    if settings.source("eval_dataset") is not None and run.eval_size is not None:
        raise SettingError(
            f"{named('eval_dataset', by)} and {named('eval_size', by)} both say what to evaluate on; give one of them"
        )
    if run.max_length is not None and run.max_prompt_length is not None and run.max_prompt_length >= run.max_length:
        raise SettingError(
            f"{named('max_prompt_length', by)} {run.max_prompt_length} leaves no room for a completion within "
            f"max_length {run.max_length}"
        )
    if "forget_column" in by and data != "forget":
        raise SettingError(f"{by['forget_column'].label} is for methods that unlearn; {run.algo} learns from {data}")
    if settings.source("retain_dataset") is not None:
        if data != "forget":
            raise SettingError(
                f"{named('retain_dataset', by)} is for methods that unlearn; {run.algo} learns from {data}"
            )
        if run.forget_column is not None:
            raise SettingError(
                f"{named('retain_dataset', by)} and {named('forget_column', by)} both say what to retain; give one"
            )
    sampled = data == "rollouts"
    if run.sft_coef and (sampled or settings.entry.cls.model != "policy"):
        why = "what is sampled is nothing to imitate" if sampled else "a reward model has no likelihood"
        raise SettingError(
            f"{named('sft_coef', by)}: {why}; drop it"
            + (", or give demonstrations with --replay_dataset" if sampled else "")
        )
    if "lists_to_pairs" in by and data != "pairs":
        label = by["lists_to_pairs"].label
        raise SettingError(f"{label} is for methods that learn from pairs; {run.algo} learns from {data}")


def _model(settings: Settings, by: By) -> None:
    model, name = settings.model, settings.model.model_name_or_path
    trained = settings.entry.cls.model
    if model.lora_task_type != "CAUSAL_LM" and (trained == "policy" or model.lora_task_type != "SEQ_CLS"):
        fitting = "CAUSAL_LM" if trained == "policy" else "SEQ_CLS"
        raise SettingError(
            f"{named('lora_task_type', by)} must be {fitting}, for {settings.run.algo} trains a {trained}"
            + ("" if trained == "policy" else " model")
        )
    if (model.load_in_4bit or model.load_in_8bit) and not model.use_peft:
        quantised = "load_in_4bit" if model.load_in_4bit else "load_in_8bit"
        raise SettingError(f"{named(quantised, by)}: quantised weights cannot be trained; train adapters: --use_peft")
    if "model_name_or_path" in settings.objects:
        refuse(_LOADING, by, "the model is passed as an object, already loaded")
        if "tokenizer" not in settings.objects and name is None:
            raise SettingError(
                "tokenizer= is missing: the model is passed as an object that does not say where it was loaded from"
            )
    elif name is not None and (Path(name) / "adapter_config.json").is_file():
        refuse(_ADAPTER, by, f"{name} is an adapter with its own settings, and its training goes on")
    if settings.source("reference_model") is not None and not settings.make_algorithm().needs.reference:
        raise SettingError(f"{named('reference_model', by)}: {settings.run.algo}, set like this, uses no reference")


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


def _following(settings: Settings, by: By) -> None:
    run, rollout, needs = settings.run, settings.rollout, settings.make_algorithm().needs
    if run.sync_ref_model and not needs.reference:
        raise SettingError(f"{named('sync_ref_model', by)}: {run.algo}, set like this, uses no reference")
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
