"""How good and how far a policy is: the known reward of samples for held-out prompts, and the KL to the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from xpo import Batch, Completion, Group, Scores
from xpo.api.math import forward_kl
from xpo.data.prepare import prepare
from xpo.data.sources import Rows
from xpo.feedback.sampling import Sampling, sample
from xpo.models.load import load_policy, load_tokenizer
from xpo.models.scoring import score
from xpo.testbed import model_path, rows, testbed_reward
from xpo.train.examination import EXAMINED_TOKENS
from xpo.train.settings import ModelSettings

#: Groups scored at once.
_ROWS = 32


@dataclass(frozen=True)
class Seen:
    """What was seen of each prompt: means over its samples of the reward, the KL in nats, and the tokens."""

    rewards: list[float]
    kl: list[float]
    tokens: list[float]


def look(folder: Path, prompts: int, samples: int, seed: int) -> Seen:
    """Sample for held-out prompts from the policy in a directory, at temperature 1."""
    policy, start = model(folder), _start()
    groups = drawn(policy, prompts, samples, seed, "frontier")
    rewards = rewards_of(groups)
    lengths = [[float(len(one.ids)) for one in group.completions] for group in groups]
    return Seen(_means(rewards), _means(divergences(policy, start, groups)), _means(lengths))


def drawn(policy: Any, prompts: int, samples: int, seed: int, stream: str) -> list[Group]:
    """Held-out prompts with samples."""
    groups = held_out()[:prompts]
    found = sample(policy, _tokenizer(), groups, Sampling(samples, EXAMINED_TOKENS, seed=seed), stream=stream)
    return [replace(group, completions=some) for group, some in zip(groups, found, strict=True)]


def rewards_of(groups: Sequence[Group]) -> list[list[float]]:
    """The known reward of every completion."""
    return [
        testbed_reward([group.source["prompt"]] * len(group.completions), list(map(_said, group.completions)))
        for group in groups
    ]


@torch.no_grad()
def divergences(policy: Any, start: Any, groups: Sequence[Group]) -> list[list[float]]:
    """Of every completion the sum over its tokens of KL(policy || start) of the next token, in nats.

    Over samples of the policy its mean is the KL of whole completions, and it varies far less than the log-ratio of
    what happened to be sampled.
    """
    found: list[float] = []
    for first in range(0, len(groups), _ROWS):
        batch = Batch.of(groups[first : first + _ROWS])
        mine, other = (score(one, batch, vocabulary=True) for one in (policy, start))
        found += _summed(mine, other)
    values = iter(found)
    return [[next(values) for _ in group.completions] for group in groups]


def _summed(mine: Scores, other: Scores) -> list[float]:
    tokens = mine.over_vocabulary(lambda policy, start: forward_kl(start, policy), other)
    summed: list[float] = tokens.double().sum(-1).tolist()
    return summed


def model(folder: Path) -> Any:
    """The policy in a directory."""
    return load_policy(ModelSettings(model_name_or_path=str(folder)), training=False).model.eval()


@lru_cache(maxsize=1)
def held_out() -> list[Group]:
    """The test prompts."""
    return prepare(Rows.of(rows("prompts", "test")), "rollouts", _tokenizer(), max_length=None).groups


@lru_cache(maxsize=1)
def _start() -> Any:
    return model(model_path())


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    return load_tokenizer(ModelSettings(model_name_or_path=str(model_path())))


def _said(completion: Completion) -> str:
    text: str = _tokenizer().decode(completion.ids, skip_special_tokens=True)
    return text


def _means(values: Sequence[Sequence[float]]) -> list[float]:
    return [sum(some) / len(some) for some in values]
