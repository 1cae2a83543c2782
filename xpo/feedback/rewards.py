"""Rewards: Python functions in TRL's signature, reward models, and rewards that plugins bring, weighted and summed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from trl import ModelConfig

from xpo.api.groups import Completion, Group
from xpo.errors import FeedbackError, SettingError, did_you_mean
from xpo.feedback.imports import imported
from xpo.feedback.reward_models import ModelReward
from xpo.models.load import Policy

RewardFunction = Callable[..., Sequence[float | None]]
Message = Mapping[str, str]


@dataclass(frozen=True)
class Reward:
    """One source of reward under the name it is logged by."""

    name: str
    function: RewardFunction
    weight: float = 1.0

    def describe(self) -> str | None:
        """Where a reward model is computed, in a line; None for a function."""
        return self.function.describe() if isinstance(self.function, ModelReward) else None


def find_rewards(
    specs: Sequence[str | RewardFunction],
    weights: Sequence[float] | None,
    known: Mapping[str, RewardFunction],
    config: ModelConfig,
    policy: Policy | None = None,
) -> list[Reward]:
    """Resolve each spec: a function, a plugin's reward, ``module:function``, ``file.py:function`` or a reward model.

    Args:
        policy: what a reward model may share its weights with.
    """
    if weights is not None and len(weights) != len(specs):
        raise SettingError(f"--reward_weights has {len(weights)} numbers for {len(specs)} rewards; give one for each")
    factors = [1.0] * len(specs) if weights is None else list(weights)
    return [_find(spec, weight, known, config, policy) for spec, weight in zip(specs, factors, strict=True)]


def score_completions(
    rewards: Sequence[Reward],
    groups: Sequence[Group],
    completions: Sequence[Sequence[Completion]],
    tokenizer: PreTrainedTokenizerBase,
) -> list[list[float]]:
    """The weighted sum of all rewards for every completion of every group.

    A function may return None for a completion it has no opinion on; one with no opinion at all is an error.
    """
    rows = [(group, completion) for group, some in zip(groups, completions, strict=True) for completion in some]
    prompts, texts = [], []
    for group, completion in rows:
        prompt = group.source.get("prompt")
        text = tokenizer.decode(completion.ids, skip_special_tokens=True)
        if prompt is None:
            prompt = tokenizer.decode(group.prompt_ids, skip_special_tokens=True)
        prompts.append(prompt)
        texts.append(text if isinstance(prompt, str) else [{"role": "assistant", "content": text}])
    columns = {key: [group.source.get(key) for group, _ in rows] for key in _columns(groups)}
    ids = [completion.ids for _, completion in rows]
    totals: list[float | None] = [None] * len(rows)
    for reward in rewards:
        values = _call(reward, prompts, texts, ids, columns)
        for index, value in enumerate(values):
            if value is not None:
                totals[index] = (totals[index] or 0.0) + reward.weight * value
    missing = [index for index, total in enumerate(totals) if total is None]
    if missing:
        raise FeedbackError(
            f"no reward function scored {len(missing)} of {len(rows)} completions; each needs one number"
        )
    numbers = iter(total for total in totals if total is not None)
    return [[next(numbers) for _ in some] for some in completions]


def _columns(groups: Sequence[Group]) -> list[str]:
    reserved = {"prompt", "prompts", "completions", "completion_ids"}
    return sorted({key for group in groups for key in group.source} - reserved)


def _call(
    reward: Reward, prompts: list[Any], texts: list[Any], ids: list[list[int]], columns: Mapping[str, list[Any]]
) -> list[float | None]:
    try:
        values = reward.function(prompts=prompts, completions=texts, completion_ids=ids, **columns)
    except Exception as error:  # a stranger's function may raise anything; the message must name it
        raise FeedbackError(f"reward '{reward.name}' raised {type(error).__name__}: {error}") from error
    try:
        values = [None if value is None else float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise FeedbackError(f"reward '{reward.name}' must return a list of numbers: {error}") from error
    if len(values) != len(prompts):
        raise FeedbackError(f"reward '{reward.name}' returned {len(values)} numbers for {len(prompts)} completions")
    for index, value in enumerate(values):
        if value is not None and not math.isfinite(value):
            raise FeedbackError(
                f"reward '{reward.name}' returned {value} for completion {index}; rewards must be finite"
            )
    return values


def _find(
    spec: str | RewardFunction,
    weight: float,
    known: Mapping[str, RewardFunction],
    config: ModelConfig,
    policy: Policy | None,
) -> Reward:
    if not isinstance(spec, str):
        return Reward(getattr(spec, "__name__", type(spec).__name__), spec, weight)
    if spec in known:
        return Reward(spec, known[spec], weight)
    module, colon, function = spec.rpartition(":")
    if colon and not Path(spec).exists():
        return Reward(function, imported(module, function, "reward"), weight)
    if not Path(spec).is_dir() and "/" not in spec:
        names = ", ".join(sorted(known)) or "none"
        raise SettingError(
            f"reward '{spec}' is unknown.{did_you_mean(spec, known)} Known are: {names}; or "
            "give module:function, file.py:function, or a sequence-classification model"
        )
    return Reward(Path(spec).name, ModelReward.load(spec, config, policy), weight)
