"""Rewards: Python functions in TRL's signature, reward models, and rewards that plugins bring, weighted and summed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from trl import ModelConfig

from xpo.api.groups import Completion, Group
from xpo.errors import FeedbackError, SettingError, did_you_mean
from xpo.feedback.imports import imported
from xpo.feedback.loop import NAMES, Loop
from xpo.feedback.reward_models import ModelReward
from xpo.feedback.waiting import is_coroutine, together
from xpo.models.load import Policy

RewardFunction = Callable[..., Sequence[float | None]]
Message = Mapping[str, str]


@dataclass(frozen=True)
class Reward:
    """One source of reward under the name it is logged by.

    Attributes:
        name: for messages.
        function: gives a number for every completion, at once or as a coroutine.
        weight: what its numbers are multiplied by.
        loop: where it is called from, shared by the rewards that are summed.
    """

    name: str
    function: RewardFunction
    weight: float = 1.0
    loop: Loop = field(default_factory=Loop, compare=False, repr=False)

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
    found = [_find(spec, weight, known, config, policy) for spec, weight in zip(specs, factors, strict=True)]
    loop = Loop()
    return [replace(one, loop=loop) for one in found]


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
    for reward in rewards:
        reward.loop.begin(rows)
    given = {"prompts": prompts, "completions": texts, "completion_ids": ids, **columns}
    totals: list[float | None] = [None] * len(rows)
    for reward, values in zip(rewards, _returned(rewards, given), strict=True):
        for index, value in enumerate(_checked(reward, values, len(rows))):
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
    reserved = {"prompt", "prompts", "completions", "completion_ids"} | NAMES
    return sorted({key for group in groups for key in group.source} - reserved)


def _returned(rewards: Sequence[Reward], given: Mapping[str, Any]) -> list[Any]:
    """What each function returns. Coroutines wait for each other, as they are slow for others' sake: a server's."""
    calls: list[Callable[[], Any]] = [
        partial(one.function, **given, **one.loop.given(one.name, one.function)) for one in rewards
    ]
    slow = [number for number, one in enumerate(rewards) if is_coroutine(one.function)]
    found: list[Any] = [None if number in slow else _outcome(call) for number, call in enumerate(calls)]
    if slow:
        for number, value in zip(slow, together([calls[number] for number in slow]), strict=True):
            found[number] = value
    for reward, value in zip(rewards, found, strict=True):
        if isinstance(value, FeedbackError):
            raise value
        if isinstance(value, BaseException):
            raise FeedbackError(f"reward '{reward.name}' raised {type(value).__name__}: {value}") from value
    return found


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # a stranger's function may raise anything; the message must name it
        return error


def _checked(reward: Reward, values: Any, count: int) -> list[float | None]:
    try:
        found = [None if value is None else float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise FeedbackError(f"reward '{reward.name}' must return a list of numbers: {error}") from error
    if len(found) != count:
        raise FeedbackError(f"reward '{reward.name}' returned {len(found)} numbers for {count} completions")
    for index, value in enumerate(found):
        if value is not None and not math.isfinite(value):
            raise FeedbackError(
                f"reward '{reward.name}' returned {value} for completion {index}; rewards must be finite"
            )
    return found


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
