"""``--online``: what a method of pairs, labels or lists learns from, made of samples of the policy and their scores."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from xpo.api.groups import Completion, Group, Kind
from xpo.feedback.sampling import Sampling
from xpo.train.settings import RolloutSettings, Settings


@dataclass(frozen=True)
class Forming:
    """How scored samples become data.

    Attributes:
        kind: the kind of data.
        pairs: which pairs are made of the samples of a prompt: of the ``best_worst``, ``all``, or one at ``random``.
        threshold: score above which a sample is desirable; None for the mean of the samples of its prompt.
        seed: of random pairs.
    """

    kind: Kind
    pairs: Literal["best_worst", "all", "random"] = "best_worst"
    threshold: float | None = None
    seed: int = 0

    def groups(self, group: Group, stream: str = "") -> list[Group]:
        """The groups of a prompt's samples; none where they are all alike, or as good as each other.

        Args:
            group: a prompt with samples, those without a score left out.
            stream: further part of the seed.
        """
        if self.kind == "pairs":
            return [_pair(group, better, worse) for better, worse in self._pairs(group.completions, stream, group.row)]
        scores = [score_of(one) for one in group.completions]
        if len(scores) < 2 or (min(scores) == max(scores) and self.threshold is None):
            return []
        if self.kind == "lists":
            return [group]
        bar = sum(scores) / len(scores) if self.threshold is None else self.threshold
        return [replace(group, completions=[replace(one, label=score_of(one) > bar)]) for one in group.completions]

    def anyway(self, group: Group) -> list[Group]:
        """Some groups of a prompt, whatever its samples are worth: stand-ins, which do not count."""
        scored = [replace(one, score=float(-place)) for place, one in enumerate(group.completions)]
        if self.kind == "pairs":
            return [_pair(group, scored[0], scored[-1])]
        if self.kind == "labels":
            return [replace(group, completions=[replace(one, label=place == 0)]) for place, one in enumerate(scored)]
        return [replace(group, completions=scored)]

    def _pairs(self, samples: Sequence[Completion], stream: str, row: int) -> list[tuple[Completion, Completion]]:
        found = list(combinations(samples, 2))
        if self.pairs == "random" and found:
            found = [random.Random(f"{self.seed}/{stream}/{row}").choice(found)]
        if self.pairs == "best_worst" and found:
            found = [(max(samples, key=score_of), min(samples, key=score_of))]
        ordered = [(a, b) if score_of(a) > score_of(b) else (b, a) for a, b in found]
        return [(better, worse) for better, worse in ordered if score_of(better) > score_of(worse)]


def _pair(group: Group, better: Completion, worse: Completion) -> Group:
    return replace(group, completions=[replace(better, role="chosen"), replace(worse, role="rejected")], pairs=[(0, 1)])


def score_of(completion: Completion) -> float:
    """The score of a completion that must have one by now."""
    assert completion.score is not None
    return completion.score


def forming_of(settings: Settings) -> Forming | None:
    """How a run forms its data; None where the method itself learns from samples, or nothing is sampled."""
    rollout, kind = settings.rollout, settings.entry.cls.data
    if rollout is None or kind == "rollouts":
        return None
    return Forming(kind, rollout.online_pairs, rollout.label_threshold, settings.training.seed)


def sampling_of(settings: Settings) -> Sampling | None:
    """How completions are sampled while training; None for methods that learn from data."""
    rollout = settings.rollout
    if rollout is None:
        return None
    return sampling_by(rollout, settings.training.seed)


def sampling_by(rollout: RolloutSettings, seed: int) -> Sampling:
    """Sampling as the settings of a command say, which have been checked."""
    assert rollout.num_generations is not None
    return Sampling(
        rollout.num_generations,
        rollout.max_completion_length,
        rollout.temperature,
        seed,
        top_k=rollout.top_k,
        top_p=rollout.top_p,
    )
