"""What is watched in every run, whatever its method: what becomes of the preferred completions, of length, of weight.

Made from what training computes anyway. ``advice`` says what to do about it, docs/diagnostics.md how to read it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from xpo.api.batch import Batch, Scores
from xpo.api.groups import Group, Kind
from xpo.train.meter import Meter
from xpo.train.ranks import gathered

#: Every key that is logged, with its meaning.
MEANINGS: Mapping[str, str] = {
    "diagnostics/chosen_gain": "log-ratio to the reference of chosen (desirable, best) completions, a token",
    "diagnostics/rejected_gain": "log-ratio to the reference of rejected (undesirable, worst) completions, a token",
    "diagnostics/chosen_logp": "log-probability of chosen (desirable, best) completions, a token",
    "diagnostics/rejected_logp": "log-probability of rejected (undesirable, worst) completions, a token",
    "diagnostics/retain_gain": "log-ratio to the reference of completions to retain, a token",
    "diagnostics/retain_logp": "log-probability of completions to retain, a token",
    "diagnostics/length_gap": "tokens by which the preferred completions are longer than the others",
    "diagnostics/length_bias": "correlation of rewards and length that the labels do not explain",
    "diagnostics/effective_share": "prompts that carry the update as a share: (sum w)^2 / (n sum w^2), w their pulls",
}

#: Micro-batches whose numbers may wait on the device to be read: a window may hold thousands.
WAITING = 64
#: Fewer items have no correlation worth the name; nor have rewards that hardly differ, in nats.
ITEMS, ROUNDING = 8, 1e-2


@dataclass
class _Members:
    """Places in the micro-batch of the completions of one prompt, and what is known of them."""

    pairs: list[tuple[int, int]] = field(default_factory=list)
    labels: list[tuple[int, bool]] = field(default_factory=list)
    sampled: list[tuple[int, float]] = field(default_factory=list)
    retained: list[int] = field(default_factory=list)
    pulled: list[int] = field(default_factory=list)


@dataclass
class _Seen:
    """A micro-batch. Of its completions only numbers are kept: rollouts are large.

    Attributes:
        prompts: who is who.
        lengths: tokens of each completion.
        what: what the values are: ``gain``, log-ratios to the reference; ``logp``; ``reward``, of a reward model.
        values: (C,) what the policy says, summed over tokens.
        squares: (C,) squared norm of the loss's gradient by it; None until the backward pass came by.
    """

    prompts: list[_Members]
    lengths: list[int]
    what: str
    values: Tensor
    squares: Tensor | None = None

    def pull(self, real: Tensor, index: Tensor, gradient: Tensor) -> None:
        """A hook of the backward pass. Sums over tokens have a gradient in the padding too."""
        squares = gradient.detach().float().masked_fill(~real, 0.0).square()
        self.squares = squares.reshape(len(squares), -1).sum(-1)[index]


class Diagnostics(Meter):
    """A meter that also watches micro-batches. How they were split makes no difference."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[_Seen] = []
        self._moments: dict[str, list[float]] = {}

    def watch(self, batch: Batch, policy: Scores, reference: Scores | None, kind: Kind) -> None:
        """Take note of a micro-batch before its backward pass. Nothing is read from the device here."""
        if batch.idle:
            return
        view, index = batch.part("")  # of several methods, the one that the run is about
        completions = [one for group in view.groups for one in group.completions]
        if policy.rewards is not None:
            what, source, values = "reward", policy.rewards, policy.rewards
        elif reference is not None and all(one.referenced for one in completions):
            what, source, values = "gain", policy.logps, policy.sum() - reference.sum()
        else:
            what, source, values = "logp", policy.logps, policy.sum()
        lengths = [max(len(one.ids), 1) for one in completions]
        seen = _Seen(list(_members(view.groups, kind)), lengths, what, values.detach()[index])
        if len(self._waiting) >= WAITING:
            self._fold()
        self._waiting.append(seen)
        if source.requires_grad and kind != "demonstrations":
            real = batch.mask if source.dim() == 2 else batch.mask.any(-1)
            source.register_hook(partial(seen.pull, real, index))  # type: ignore[no-untyped-call]  # torch

    def read(self, world: int) -> dict[str, float]:
        """Everything over all ranks, and start anew. Every rank must call it."""
        found = super().read(world)
        self._fold()
        mine, self._moments = self._moments, {}
        moments: dict[str, list[float]] = {}
        for part in gathered(mine, world):
            for name, values in part.items():
                _add(moments, name, *values)
        return {**found, **{f"diagnostics/{name}": value for name, value in _numbers(moments)}}

    def _fold(self) -> None:
        for seen in self._waiting:
            values = seen.values.tolist()
            squares = None if seen.squares is None else seen.squares.tolist()
            for prompt in seen.prompts:
                if seen.what != "reward":
                    self._sides(prompt, seen, values)
                self._points(prompt, seen, values)
                if squares is not None and prompt.pulled:
                    pull = math.sqrt(sum(squares[place] for place in prompt.pulled))
                    if math.isfinite(pull):  # half precision overflows now and then, and takes no step
                        _add(self._moments, "pull", 1.0, pull, pull * pull)
        self._waiting = []

    def _sides(self, prompt: _Members, seen: _Seen, values: Sequence[float]) -> None:
        sides = [
            (side, place) for pair in prompt.pairs for side, place in zip(("chosen", "rejected"), pair, strict=True)
        ]
        sides += [("chosen" if label else "rejected", place) for place, label in prompt.labels]
        for side, place in [*sides, *(("retain", place) for place in prompt.retained)]:
            _add(self._moments, f"{side}_{seen.what}", values[place], seen.lengths[place])

    def _points(self, prompt: _Members, seen: _Seen, values: Sequence[float]) -> None:
        """(length, reward) of the items of each class: what is within a class, no label explains."""
        lengths = seen.lengths
        # Without a reference the log-probability of a long completion is low because it is long.
        rewards = values if seen.what != "logp" else [a / b for a, b in zip(values, lengths, strict=True)]
        points = [("pair", float(lengths[a] - lengths[b]), rewards[a] - rewards[b]) for a, b in prompt.pairs]
        points += [("desirable" if label else "undesirable", lengths[at], rewards[at]) for at, label in prompt.labels]
        n = max(len(prompt.sampled), 1)  # samples are compared with those of the same prompt
        x, y = sum(lengths[place] for place, _ in prompt.sampled) / n, sum(score for _, score in prompt.sampled) / n
        points += [("sampled", lengths[place] - x, score - y) for place, score in prompt.sampled]
        for name, x, y in points:
            _add(self._moments, name, 1.0, x, y, x * x, y * y, x * y)


def _members(groups: Sequence[Group], kind: Kind) -> Iterator[_Members]:
    start = 0
    for group in groups:
        places = list(enumerate(group.completions, start))
        trained = [(place, one) for place, one in places if one.trainable]
        found = _Members([(start + a, start + b) for a, b in group.pairs])
        found.labels = [(place, one.label) for place, one in trained if one.label is not None]
        found.retained = [place for place, one in places if one.role == "retain"]
        found.pulled = [place for place, one in trained if one.role != "retain"]
        scored = [(one.score, place) for place, one in trained if one.score is not None]
        if kind == "rollouts":
            found.sampled = [(place, score) for score, place in scored]
        elif kind == "lists" and not found.pairs and scored and min(scored)[0] < max(scored)[0]:
            found.pairs = [(max(scored)[1], min(scored)[1])]
        start += len(places)
        yield found


def _add(sums: dict[str, list[float]], name: str, *values: float) -> None:
    sums[name] = [a + b for a, b in zip(sums.get(name, [0.0] * len(values)), values, strict=True)]


def _numbers(moments: Mapping[str, list[float]]) -> Iterator[tuple[str, float]]:
    for name in (f"{side}_{what}" for side in ("chosen", "rejected", "retain") for what in ("gain", "logp")):
        if name in moments:
            yield name, moments[name][0] / moments[name][1]
    lengths = {
        name: total[1] / total[0] for name, total in moments.items() if name in ("pair", "desirable", "undesirable")
    }
    if "pair" in lengths:
        yield "length_gap", lengths["pair"]
    elif len(lengths) == 2:
        yield "length_gap", lengths["desirable"] - lengths["undesirable"]
    bias = _correlation([moments[name] for name in ("pair", "desirable", "undesirable", "sampled") if name in moments])
    if bias is not None:
        yield "length_bias", bias
    if "pull" in moments:
        n, once, twice = moments["pull"]
        yield "effective_share", once * once / (n * twice) if twice else 0.0


def _correlation(classes: Sequence[Sequence[float]]) -> float | None:
    """Of the numbers x and y within classes, from (n, sum x, sum y, sum xx, sum yy, sum xy) of each."""
    n = sum(c[0] for c in classes)
    xx, yy, xy = (sum(c[at] - c[a] * c[b] / c[0] for c in classes) for at, a, b in ((3, 1, 1), (4, 2, 2), (5, 1, 2)))
    if n < ITEMS or not xx > ROUNDING**2 * n or not yy > ROUNDING**2 * n:
        return None
    return xy / math.sqrt(xx * yy)
