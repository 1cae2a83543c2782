"""Who says what answers are worth: rewards and judges, found by the names that training knows them by."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from xpo.assess.settings import EvalSettings
from xpo.feedback.judge_functions import FunctionJudge
from xpo.feedback.judge_http import HttpJudge
from xpo.feedback.judge_models import PreferenceJudge, RewardJudge
from xpo.feedback.judges import RUBRIC, SERVED, Judge, find_judge
from xpo.feedback.reward_models import ModelReward
from xpo.feedback.rewards import Reward, find_rewards
from xpo.plugins import Registry
from xpo.train.judging import judge_options, refuse_broken


def rewards_of(
    specs: Sequence[str] | None, settings: EvalSettings, registry: Registry, device: torch.device
) -> list[Reward]:
    """The rewards of some names, models of them on the device.

    Raises:
        SettingError: there is no such reward.
        ModelError: a model cannot be loaded.
    """
    for spec in specs or ():
        refuse_broken("reward", spec, registry.rewards, registry)
    found = find_rewards(specs or [], settings.rollout.reward_weights, registry.rewards, settings.model)
    for reward in found:
        if isinstance(reward.function, ModelReward):
            reward.function.scalar.model.to(device)
    return found


def judge_of(settings: EvalSettings, registry: Registry) -> Judge | None:
    """The judge, if one is named.

    Raises:
        SettingError: there is no such judge.
        ModelError: a model cannot be loaded.
    """
    rollout = settings.rollout
    if rollout.judge is None:
        return None
    refuse_broken("judge", rollout.judge, registry.judges, registry)
    return find_judge(rollout.judge, registry.judges, settings.model, judge_options(rollout, settings.own.seed))


def kind_of(judge: Judge | None, rewards: Sequence[Reward]) -> tuple[bool, bool]:
    """Whether they are, or ask, a language model here; and whether they are any model here."""
    asker: Any = None if judge is None else judge.ask
    models = any(isinstance(one.function, ModelReward) for one in rewards)
    if asker is None or isinstance(asker, FunctionJudge | HttpJudge):
        return False, models
    scalar = isinstance(asker, PreferenceJudge | RewardJudge)
    served = judge is not None and judge.name.removeprefix(RUBRIC).startswith(SERVED)
    return not scalar and not served, models or not served


def labels_of(names: Sequence[str]) -> dict[str, str]:
    """Short names of models and files: the last part of a path, unless several have the same."""
    short = {name: Path(name).name if Path(name).exists() else name for name in names}
    return {name: one if list(short.values()).count(one) == 1 else name for name, one in short.items()}


def free() -> None:
    """Give back the memory of models that nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
