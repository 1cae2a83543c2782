"""Rewards: Python functions in TRL's signature, reward models, and rewards that plugins bring, weighted and summed."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import ModelConfig

from xpo.api.groups import Completion, Group
from xpo.errors import FeedbackError, SettingError, did_you_mean
from xpo.models.load import load_classifier
from xpo.models.zero import Zero

RewardFunction = Callable[..., Sequence[float | None]]
Message = Mapping[str, str]


@dataclass(frozen=True)
class Reward:
    """One source of reward under the name it is logged by."""

    name: str
    function: RewardFunction
    weight: float = 1.0


def find_rewards(
    specs: Sequence[str | RewardFunction],
    weights: Sequence[float] | None,
    known: Mapping[str, RewardFunction],
    config: ModelConfig,
) -> list[Reward]:
    """Resolve each spec: a function, a plugin's reward, ``module:function``, ``file.py:function`` or a reward model."""
    if weights is not None and len(weights) != len(specs):
        raise SettingError(f"--reward_weights has {len(weights)} numbers for {len(specs)} rewards; give one for each")
    factors = [1.0] * len(specs) if weights is None else list(weights)
    return [_find(spec, weight, known, config) for spec, weight in zip(specs, factors, strict=True)]


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
    spec: str | RewardFunction, weight: float, known: Mapping[str, RewardFunction], config: ModelConfig
) -> Reward:
    if not isinstance(spec, str):
        return Reward(getattr(spec, "__name__", type(spec).__name__), spec, weight)
    if spec in known:
        return Reward(spec, known[spec], weight)
    module, colon, function = spec.rpartition(":")
    if colon and not Path(spec).exists():
        return Reward(function, _import(module, function), weight)
    if not Path(spec).is_dir() and "/" not in spec:
        names = ", ".join(sorted(known)) or "none"
        raise SettingError(
            f"reward '{spec}' is unknown.{did_you_mean(spec, known)} Known are: {names}; or "
            "give module:function, file.py:function, or a sequence-classification model"
        )
    model, tokenizer = load_classifier(spec, config)
    return Reward(Path(spec).name, _ModelReward(model, tokenizer, zero=Zero.beside(spec)), weight)


def _import(module: str, function: str) -> RewardFunction:
    try:
        if module.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(module).stem, module)
            if spec is None or spec.loader is None or not Path(module).is_file():
                raise FileNotFoundError(f"there is no file '{module}'")
            loaded = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded)
        else:
            loaded = importlib.import_module(module)
    except Exception as error:  # whatever a user's module raises while it is imported
        raise SettingError(f"reward '{module}:{function}' cannot be imported: {error}") from error
    found = getattr(loaded, function, None)
    if not callable(found):
        raise SettingError(f"'{module}' has no function '{function}'.{did_you_mean(function, vars(loaded))}")
    return found  # type: ignore[no-any-return]  # a user's function: its result is checked at every call


class _ModelReward:
    """A sequence-classification model as a reward function: its score of prompt and completion, at the last token.

    One that was trained here has a zero of its own and read texts that end, as completions do.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        rows: int = 32,
        zero: Zero | None = None,
    ) -> None:
        self.model, self.tokenizer, self.rows, self.zero = model, tokenizer, rows, zero

    @torch.no_grad()
    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float]:
        texts = [self._text(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        scores: list[float] = []
        special = not any(isinstance(prompt, list) for prompt in prompts)  # a chat template brings its own
        for start in range(0, len(texts), self.rows):
            rows = self.tokenizer(texts[start : start + self.rows], add_special_tokens=special)["input_ids"]
            # The head is read at the last token that is not padding. A padding id that occurs in the text, as when it
            # equals EOS, would move that place, so one that does not occur is chosen.
            used = {token for row in rows for token in row}
            pad = next(token for token in range(len(used) + 1) if token not in used)
            width = max(map(len, rows))
            input_ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
            self.model.config.pad_token_id = pad
            device = self.model.device
            logits = self.model(input_ids=input_ids.to(device), attention_mask=mask.to(device)).logits
            scores.extend(logits[:, 0].float().tolist())
        return scores if self.zero is None else [score - self.zero.bias for score in scores]

    def _text(self, prompt: Any, completion: Any) -> str:
        if isinstance(prompt, str):
            return f"{prompt}{completion}" + ("" if self.zero is None else str(self.tokenizer.eos_token or ""))
        if self.tokenizer.chat_template is None:
            raise FeedbackError("the reward model's tokenizer has no chat template, but the prompts are conversations")
        return str(self.tokenizer.apply_chat_template([*prompt, *completion], tokenize=False))
