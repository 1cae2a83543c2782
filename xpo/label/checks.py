"""What can be wrong with settings of labelling that are each right by themselves: found before anything is read."""

from __future__ import annotations

import os
from collections.abc import Mapping

from xpo.errors import SettingError
from xpo.feedback.judges import RUBRIC, SERVED
from xpo.label.settings import ASKED, LabelSettings
from xpo.train.rules import NOT_NEGATIVE, POSITIVE, SHARE, Rule, check_needed, check_rules

_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(
        ("batch_size", "limit", "max_completion_length", "temperature", "top_k", "judge_timeout", "judge_concurrency"),
        POSITIVE,
    ),
    **dict.fromkeys(("judge_retries", "missing_eos_penalty"), NOT_NEGATIVE),
    "num_generations": ("must be at least 2, for completions are compared", lambda value: value >= 2),
    "top_p": SHARE,
}
_REQUIRES: Mapping[str, str] = {
    **dict.fromkeys(("judge_url", "judge_template", *ASKED), "judge"),
    **dict.fromkeys(("bnb_4bit_quant_type", "use_bnb_nested_quant"), "load_in_4bit"),
    "reward_weights": "reward",
    "model_revision": "model_name_or_path",
    "chat_template_path": "model_name_or_path",
    **dict.fromkeys(("dataset_config", "dataset_train_split"), "dataset_name"),
}


def check(settings: LabelSettings) -> None:
    """Refuse what cannot be honoured, before anything is read.

    Raises:
        SettingError: the first thing that is wrong.
    """
    rollout, by = settings.rollout, settings.changed
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise SettingError("xpo label is one process; start it without a launcher")
    check_rules(_RULES, settings.value, by)
    check_needed(_REQUIRES, settings.value, by)
    for name, kind in (("online_pairs", "pairs"), ("label_threshold", "labels")):
        if settings.own.to != kind:
            settings.refuse([name], f"it is about {kind}, and --to is {settings.own.to}")
    if rollout.judge is not None:
        if rollout.reward:
            raise SettingError("--reward and --judge both say what completions are worth; give one of them")
        settings.refuse(["missing_eos_score"], "it is a reward, and a judge gives none")
        if not rollout.judge.removeprefix(RUBRIC).startswith(SERVED):
            settings.refuse(ASKED, f"it is for --judge openai:MODEL, and '{rollout.judge}' asks no server")
    elif not rollout.reward and not settings.embedded:
        raise SettingError(
            "somebody must say what completions are worth: give --judge or --reward a name from `xpo plugins`, "
            "module:function, file.py:function, or a model (`xpo label --help`)"
        )
    if rollout.missing_eos_score is not None and rollout.missing_eos_penalty is not None:
        raise SettingError(
            "--missing_eos_score takes the place of a reward, and --missing_eos_penalty lowers it; give one of them"
        )
