"""How a trained policy orders the held-out lists: by what its training made more likely, against the true order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch

from xpo import Batch, Group, Scores
from xpo.data.prepare import prepare
from xpo.data.sources import Rows
from xpo.models.load import load_policy, load_tokenizer
from xpo.models.scoring import score
from xpo.testbed import Knobs, model_path, rows
from xpo.train.settings import ModelSettings

#: Groups scored at once.
_ROWS = 32


def ranking(folder: Path) -> dict[str, list[float]]:
    """Of each list: the share of its pairs in the true order, and its nDCG, by implicit rewards."""
    groups = held_out()
    before, after = _start(), iter(scores(folder, groups))
    gains = iter([new - old for new, old in zip(after, before, strict=True)])
    found: dict[str, list[float]] = {"accuracy": [], "ndcg": []}
    for group in groups:
        truth = [float(one.score or 0.0) for one in group.completions]
        mine = [next(gains) for _ in truth]
        found["accuracy"].append(accuracy(mine, truth))
        found["ndcg"].append(ndcg(mine, truth))
    return found


def accuracy(values: Sequence[float], truth: Sequence[float]) -> float:
    """Share of the pairs that differ in truth which ``values`` put in the same order; a tie is half."""
    pairs = [(a, b) for a in range(len(truth)) for b in range(len(truth)) if truth[a] > truth[b]]
    right = sum(1.0 if values[a] > values[b] else 0.5 if values[a] == values[b] else 0.0 for a, b in pairs)
    return right / len(pairs) if pairs else 0.5


def ndcg(values: Sequence[float], truth: Sequence[float]) -> float:
    """Discounted gain of the order of ``values`` over that of the best order; the gain is the lead over the worst."""

    def gain(order: Sequence[int]) -> float:
        return sum((truth[item] - min(truth)) / math.log2(place + 2) for place, item in enumerate(order))

    places = range(len(truth))
    best = gain(sorted(places, key=lambda item: -truth[item]))
    return gain(sorted(places, key=lambda item: -values[item])) / best if best else 1.0


@lru_cache(maxsize=1)
def held_out() -> list[Group]:
    """The test prompts' lists with the true reward of every completion."""
    return groups_of("lists", "test", Knobs(temperature=0.0))


def groups_of(kind: str, split: str, knobs: Knobs | None = None) -> list[Group]:
    """Rows of the testbed as groups."""
    tokenizer = load_tokenizer(ModelSettings(model_name_or_path=str(model_path())))
    return prepare(Rows.of(rows(kind, split, knobs)), kind, tokenizer, max_length=None).groups  # type: ignore[arg-type]  # a literal


@lru_cache(maxsize=1)
def _start() -> list[float]:
    return scores(model_path(), held_out())


def scores(folder: Path, groups: Sequence[Group], per_token: bool = False) -> list[float]:
    """Log-probability of every completion under the model in a directory, summed or a mean over its tokens."""
    model = load_policy(ModelSettings(model_name_or_path=str(folder)), training=False).model.eval()
    found: list[float] = []
    with torch.no_grad():
        for start in range(0, len(groups), _ROWS):
            said: Scores = score(model, Batch.of(groups[start : start + _ROWS], device=model.device))
            found += (said.mean() if per_token else said.sum()).tolist()
    return found
