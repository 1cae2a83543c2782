"""What can be wrong with settings of evaluation that are each right by themselves: found before anything is read."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import torch

from xpo.assess.settings import ASKED, QUANTIZED, EvalSettings
from xpo.errors import SettingError
from xpo.feedback.judges import RUBRIC, SERVED
from xpo.train.rules import NOT_NEGATIVE, POSITIVE, SHARE, Rule, check_needed, check_rules
from xpo.train.settings import embedded

_RANGES: Mapping[str, Rule] = {
    **dict.fromkeys(
        (
            *("max_samples", "max_length", "max_prompt_length", "batch_tokens", "eval_prompts", "eval_tokens"),
            *("temperature", "top_k", "judge_timeout", "judge_concurrency"),
        ),
        POSITIVE,
    ),
    "judge_retries": NOT_NEGATIVE,
    "beta": ("must be a positive number", lambda value: 0 < value < math.inf),
    "top_p": SHARE,
}
_REQUIRES: Mapping[str, str] = {
    **dict.fromkeys(("judge_url", "judge_template", *ASKED), "judge"),
    **dict.fromkeys(("bnb_4bit_quant_type", "use_bnb_nested_quant"), "load_in_4bit"),
    "reward_weights": "reward",
    "dataset_config": "dataset_name",
    **dict.fromkeys(("model_revision", "chat_template_path"), "model"),
}
#: What is about samples, and what about labelled preferences.
_SAMPLING = ("eval_prompts", "eval_tokens", "temperature", "top_k", "top_p")
_LABELLED = (
    *("scorer", "beta", "reference_model", "subset_column", "sections", "max_samples", "batch_tokens", "max_length"),
)
#: What is about scores of language models.
_SCORED = ("scorer", "beta", "reference_model", "batch_tokens", "max_length", "max_prompt_length")


def check(settings: EvalSettings) -> None:
    """Refuse what cannot be honoured, before anything is read.

    Raises:
        SettingError: the first thing that is wrong.
    """
    own, rollout, by = settings.own, settings.rollout, settings.changed
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingError("xpo eval is one process; start it without a launcher")
    check_rules(_RANGES, settings.value, by)
    check_needed(_REQUIRES, settings.value, by)
    for name in own.model:
        if own.model.count(name) > 1:
            raise SettingError(f"--model names '{name}' twice")
    if own.device is not None and own.use_cpu:
        raise SettingError("--device and --use_cpu both say where models are computed; give one of them")
    device_of(settings)
    if rollout.judge is not None:
        if rollout.judge.removeprefix(RUBRIC) == "self":
            raise SettingError("--judge self: nobody judges by what is judged; give the model as --judge DIRECTORY")
        if not rollout.judge.removeprefix(RUBRIC).startswith(SERVED):
            settings.refuse(ASKED, f"it is for --judge openai:MODEL, and '{rollout.judge}' asks no server")
    if own.against is None:
        _check_preferences(settings)
    else:
        _check_wins(settings)


def _check_preferences(settings: EvalSettings) -> None:
    own, rollout = settings.own, settings.rollout
    settings.refuse(_SAMPLING, "nothing is sampled without --against")
    if rollout.judge is None:
        settings.refuse(["seed"], "nothing is drawn without --against or --judge")
    if not own.model and not rollout.reward and rollout.judge is None:
        raise SettingError(
            "--model is missing: the models to judge, a directory, a hub id or testbed (by comma if several); or give "
            "--reward or --judge, to see how well they agree with the data"
        )
    for name in own.model:
        if is_answers(name):
            raise SettingError(f"--model {name} is a file; files of completions are compared, with --against")
    if not own.model:
        settings.refuse(_SCORED, "it is for scores of a language model; give --model")
    if own.scorer is not None and own.scorer.startswith("logp"):
        settings.refuse(["reference_model", "beta"], f"--scorer {own.scorer} is without a reference")


def _check_wins(settings: EvalSettings) -> None:
    own, rollout = settings.own, settings.rollout
    if not own.model:
        raise SettingError("--against needs --model: the model whose answers are compared with those")
    settings.refuse(_LABELLED, "it is about labelled preferences, and --against compares answers to prompts")
    if own.against in own.model:
        raise SettingError(f"--against {own.against} is what --model is; give two different models")
    if rollout.judge is not None and rollout.reward:
        raise SettingError("--reward and --judge both say what answers are worth; give one of them")
    if rollout.judge is None and not rollout.reward and not on_testbed(settings):
        raise SettingError(
            "somebody must say what answers are worth: give --reward or --judge a name from `xpo plugins`, "
            "module:function, file.py:function, or a model (`xpo eval --help`)"
        )
    if all(map(is_answers, (*own.model, str(own.against)))):
        settings.refuse([*_SAMPLING, "chat_template_path"], "nothing is sampled: all answers come from files")


def on_testbed(settings: EvalSettings) -> bool:
    """Whether answers are to prompts of the testbed, whose reward is known."""
    own, name = settings.own, settings.run.dataset_name
    from_file = name is None and any(map(is_answers, (*own.model, own.against or "")))
    return embedded(name) and not from_file


def check_loaded(settings: EvalSettings, language: bool, any_model: bool) -> None:
    """Refuse ways of loading where nothing is loaded that way.

    Args:
        language: whether a language model is loaded.
        any_model: whether any model is.
    """
    if not any_model:
        settings.refuse(
            ["dtype", "attn_implementation", "trust_remote_code", "device", "use_cpu", *QUANTIZED], "no model is loaded"
        )
    if not language:
        settings.refuse([*QUANTIZED, "attn_implementation"], "it is for language models, and none is loaded")


def is_answers(name: str) -> bool:
    """Whether the name of a side of a comparison is that of a file of completions."""
    return name.endswith((".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet"))


def device_of(settings: EvalSettings) -> torch.device:
    """Where models are computed.

    Raises:
        SettingError: there is no such device here.
    """
    own = settings.own
    if own.use_cpu:
        return torch.device("cpu")
    if own.device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(own.device)
    except RuntimeError as error:
        raise SettingError(f"--device {own.device} names no device: give cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingError(f"--device {own.device}: there are {torch.cuda.device_count()} GPUs here")
    return device
