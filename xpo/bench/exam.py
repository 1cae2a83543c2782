"""The examination: what a model does on held-out prompts, number by number, the same for every method.

The start is examined once, and every trained model is compared with what was written down then. All sample with the
same random numbers, at temperature 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from xpo.api.groups import Completion, Group
from xpo.bench.data import SPLIT_SEED, Part
from xpo.evaluate import Examiner, View, known_preferences
from xpo.feedback.judges import Judge, Question
from xpo.feedback.rewards import Reward
from xpo.feedback.sampling import Sampling

#: Prompts whose samples are kept as text.
SHOWN = 4

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Feedback:
    """Who says what samples are worth: rewards, or a judge, or nobody."""

    rewards: Sequence[Reward]
    judge: Judge | None


@dataclass(frozen=True)
class Seen:
    """A model's view of each split, and how likely it finds its own samples."""

    views: Mapping[str, View]
    own: Mapping[str, list[float]]


def look(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    parts: Mapping[str, Part],
    feedback: Feedback,
    longest: int,
) -> Seen:
    """Sample and score on every split."""
    sampling = Sampling(1, longest, 1.0, SPLIT_SEED)
    views = {
        name: Examiner(tokenizer, part.compared, part.prompts, feedback.rewards, sampling).look(model)
        for name, part in parts.items()
    }
    return Seen(views, {name: logps(model, tokenizer, view.groups) for name, view in views.items()})


def logps(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, groups: Sequence[Group]) -> list[float]:
    """Log-probability of every completion of groups, summed over its tokens."""
    return Examiner(tokenizer, groups, (), (), Sampling(1, 1)).look(model).logps


def of_start(seen: Seen, tokenizer: PreTrainedTokenizerBase) -> dict[str, Numbers]:
    """What is written down of the start, by split: enough to compare any model with it later."""
    return {
        name: {
            **_sampled(view),
            "completions": [group.completions[0].ids for group in view.groups],
            "compared": view.logps,
            "texts": view.texts[:SHOWN],
            "prompts": [_prompt(group, tokenizer) for group in view.groups[:SHOWN]],
        }
        for name, view in seen.views.items()
    }


def of_trained(
    seen: Seen,
    start: Mapping[str, Numbers],
    start_logps: Mapping[str, list[float]],
    parts: Mapping[str, Part],
    judge: Judge | None,
) -> dict[str, Numbers]:
    """Number by number what a trained model does, by split, compared with the start.

    Args:
        start: as ``of_start`` wrote it.
        start_logps: log-probabilities of the model's samples under the start.
    """
    found = {}
    for name, view in seen.views.items():
        before = start[name]
        numbers = _sampled(view)
        if view.rewards:
            numbers["wins"] = [_won(new, old) for new, old in zip(view.rewards, before["rewards"], strict=True)]
        elif judge is not None:
            wins = _judged(judge, view, before)
            numbers["unjudged"] = sum(one is None for one in wins)
            numbers["wins"] = [0.5 if one is None else one for one in wins]
        numbers["kl"] = [new - old for new, old in zip(seen.own[name], start_logps[name], strict=True)]
        gains = [new - old for new, old in zip(view.logps, before["compared"], strict=True)]
        numbers["agreed"] = agreed(gains, parts[name].compared)
        numbers["texts"] = view.texts[:SHOWN]
        found[name] = numbers
    return found


def agreed(values: Sequence[float], groups: Sequence[Group]) -> list[float]:
    """Share of the known preferences that ``values`` agree with, of each held-out group; a tie is half.

    Where completions are labelled one by one, of each desirable one against all undesirable ones.
    """
    home = [number for number, group in enumerate(groups) for _ in group.completions]
    items: dict[tuple[int, int], list[float]] = {}
    for better, worse in known_preferences(groups):
        item = (home[better], -1) if home[better] == home[worse] else (home[better], better)
        items.setdefault(item, []).append(_won(values[better], values[worse]))
    return [sum(some) / len(some) for _, some in sorted(items.items())]


def _sampled(view: View) -> Numbers:
    """What is known of each sample by itself."""
    said = [group.completions[0] for group in view.groups]
    return {
        "rewards": list(view.rewards),
        "lengths": [len(one.ids) for one in said],
        "finished": [one.finished for one in said],
    }


def _judged(judge: Judge, view: View, before: Numbers) -> list[float | None]:
    questions = [
        Question(replace(group, completions=[]), group.completions[0], Completion(ids))
        for group, ids in zip(view.groups, before["completions"], strict=True)
    ]
    return list(judge.compare(questions))


def _won(new: float, old: float) -> float:
    return 1.0 if new > old else 0.5 if new == old else 0.0


def _prompt(group: Group, tokenizer: PreTrainedTokenizerBase) -> str:
    prompt = group.source.get("prompt")
    if isinstance(prompt, list):
        return "\n".join(str(message.get("content", "")) for message in prompt)
    return prompt if isinstance(prompt, str) else str(tokenizer.decode(group.prompt_ids, skip_special_tokens=True))
