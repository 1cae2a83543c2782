"""Rollouts: sample completions of prompts now, have them judged, and make of them what the algorithm learns from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from xpo.api.algorithm import Algorithm, Opponent
from xpo.api.batch import Batch, Scores
from xpo.api.groups import Completion, Group
from xpo.data.order import MicroBatch
from xpo.data.spread import even, spread
from xpo.errors import FeedbackError
from xpo.feedback.sampling import Mixture, Sampling, sample
from xpo.feedback.verdicts import Feedback, Verdict
from xpo.feedback.vllm import Server
from xpo.models.reference import Reference
from xpo.train.online import Forming

#: Column of completions: their log-probabilities under the reference, which has scored them when they were sampled.
REFERENCE = "reference_logps"

MakeBatch = Callable[[Sequence[Group], bool], Batch]
Score = Callable[[Batch], Scores]
Step = list[MicroBatch]
T = TypeVar("T")


@dataclass(frozen=True)
class Models:
    """The models of a run and the processes they are on, as rollouts use them.

    Attributes:
        bare: the policy without distributed wrapper.
        reference: the reference, where there is one.
        policy, anchor: log-probabilities of a batch under the policy and under the reference, without gradient.
        make_batch: lays groups out; the second argument says that they must not count.
        gather: what every rank gives, in the order of ranks.
        world, rank: number of ranks, and this one.
    """

    bare: torch.nn.Module
    reference: Reference | None
    policy: Score
    anchor: Score | None
    make_batch: MakeBatch
    gather: Callable[[Any], list[Any]]
    world: int = 1
    rank: int = 0


@dataclass
class SamplingCost:
    """What sampling took on this rank, and made.

    Attributes:
        seconds: spent on sampling, judging and scoring under the policy that sampled.
        sampling_seconds: of them, on sampling alone.
        tokens: sampled.
        prompts: that were sampled for.
        dropped: prompts that had nothing to learn from: no verdict, or samples that are all as good as each other.
    """

    seconds: float = 0.0
    sampling_seconds: float = 0.0
    tokens: int = 0
    prompts: int = 0
    dropped: int = 0


@dataclass
class Rollouts:
    """Turns the prompts of optimiser steps into groups of scored completions.

    Attributes:
        algorithm, feedback, sampling: what learns from samples, who judges them, and how they are drawn.
        forming: how they become pairs, labels or lists; None for an algorithm that learns from samples as they are.
        keep_logps: store the sampling policy's log-probs, for steps that reuse a rollout.
        server: where they are sampled, if not here.
        cost: so far.
        metrics: of what was filled last.
    """

    algorithm: Algorithm[Any]
    feedback: Feedback
    sampling: Sampling
    forming: Forming | None = None
    keep_logps: bool = False
    server: Server | None = None
    cost: SamplingCost = field(default_factory=SamplingCost)
    metrics: dict[str, Tensor] = field(default_factory=dict)

    def fill(self, models: Models, steps: Sequence[Step], stream: str) -> list[Step]:
        """The same micro-batches with completions in every group, and the columns of ``experience`` on them.

        Every rank must call it, with idle micro-batches too: statistics may be taken over all ranks.

        Args:
            steps: the micro-batches of optimiser steps in a row; all are sampled for by the policy as it is now.
            stream: part of the seed, beside the epoch and the step.
        """
        micros = [micro for step in steps for micro in step]
        real = [micro for micro in micros if not micro.idle] or micros[:1]
        idle = real[0].idle
        # Rows that ride along have their completions.
        prompts = [[group for group in micro.groups if not group.completions] for micro in real]
        riding = [[group for group in micro.groups if group.completions] for micro in real]
        streams = [f"{stream}/{micro.micro.epoch}/{micro.micro.step}" for micro in real]
        sizes = [len(some) for some in prompts]
        told = [name for name, size in zip(streams, sizes, strict=True) for _ in range(size)]
        drawn = self._drawn(models, [group for some in prompts for group in some], told)
        self.metrics = {} if idle else {**_metrics(drawn, self.sampling.samples), **self._judged()}
        self.cost.prompts += 0 if idle else len(drawn)
        scored = [self._scored(group, found) for group, found in drawn]
        stand_in = _finite(self._whole(*drawn[0]))
        if self.forming is not None:
            parts = [_Part(*one, stand_in) for one in zip(real, _split(scored, sizes), riding, streams, strict=True)]
            return self._formed(models, steps, {id(part.micro): part for part in parts})
        known = [[] if idle else [one for one in some if one is not None] for some in _split(scored, sizes)]
        self.cost.dropped += 0 if idle else scored.count(None)
        self._experience(models, known if any(known) else [[stand_in]], idle=not any(known))
        own = {id(micro): [*some, *more] for micro, some, more in zip(real, known, riding, strict=True)}
        stand_in = next((group for some in known for group in some), stand_in)  # with the columns of experience
        return [[_micro(micro, own.get(id(micro), []), stand_in) for micro in step] for step in steps]

    def rehearse(self, model: torch.nn.Module, groups: Sequence[Group]) -> None:
        """Sample and judge some prompts, so that feedback that cannot be had shows before anything is written."""
        samples = sample(model, self.feedback.tokenizer, groups, self.sampling, stream="rehearsal")
        verdicts = self.feedback.verdicts(groups, samples)
        judge = self.feedback.judge
        if judge is not None and judge.tally.asked and all(score is None for one in verdicts for score in one.samples):
            reasons = ", ".join(f"{count} {reason}" for reason, count in judge.tally.failed.most_common())
            raise FeedbackError(
                f"judge '{judge.name}' came to no verdict on any of {judge.tally.asked} questions: {reasons}"
            )

    def _drawn(self, models: Models, groups: Sequence[Group], streams: Sequence[str]) -> list[tuple[Group, Verdict]]:
        """Each prompt with its samples, and the completions of an opponent behind them; and what is said of them."""
        started = time.perf_counter()
        samples = self._sample(models, groups, streams)
        opponent = self.algorithm.needs.opponent
        others = None if opponent is None else self._opponents(models, opponent, groups, streams)
        self.cost.sampling_seconds += time.perf_counter() - started
        self.cost.tokens += sum(len(one.ids) for some in (*samples, *(others or ())) for one in some)
        verdicts = self.feedback.verdicts(groups, samples, others)
        answers = samples if others is None else [[*a, *b] for a, b in zip(samples, others, strict=True)]
        return [
            (replace(group, completions=some), found)
            for group, some, found in zip(groups, answers, verdicts, strict=True)
        ]

    def _sample(self, models: Models, groups: Sequence[Group], streams: Sequence[str]) -> list[list[Completion]]:
        if self.server is not None:
            if models.rank == 0:
                self.server.update(models.bare)
            models.gather(None)  # nobody asks before the server has the weights
            return self.server.generate(groups, self.sampling, streams)
        return sample(models.bare, self.feedback.tokenizer, groups, self.sampling, stream=streams)

    def _opponents(
        self, models: Models, opponent: Opponent, groups: Sequence[Group], streams: Sequence[str]
    ) -> list[list[Completion]]:
        assert models.reference is not None
        drawn = sample(
            models.bare,
            self.feedback.tokenizer,
            groups,
            replace(self.sampling, samples=opponent.samples),
            stream=[f"{name}/opponent" for name in streams],
            mixture=Mixture(models.reference, opponent.mixture),
        )
        return [[replace(one, role="opponent") for one in some] for some in drawn]

    def _judged(self) -> dict[str, Tensor]:
        """What the judge showed since it was looked at last."""
        if self.feedback.judge is None:
            return {}
        tally = self.feedback.judge.tally
        found = {name: torch.tensor([value]) for name, value in tally.metrics().items()}
        tally.reset()
        return found

    def _scored(self, group: Group, found: Verdict) -> Group | None:
        """A prompt with its completions and their scores; None without a verdict that could be learned from."""
        # Of pairs and lists what is known is enough; of labels every prompt is to bring as many.
        whole_only = self.forming is None or self.forming.kind == "labels"
        if whole_only and None in (*found.samples, *found.opponents):
            return None
        whole = self._whole(group, found)
        known = [one for one in whole.completions if one.score is not None]
        return replace(whole, completions=known) if known else None

    def _whole(self, group: Group, found: Verdict) -> Group:
        opponent = self.algorithm.needs.opponent
        scores = [*found.samples, *(found.opponents if opponent is not None and opponent.trained else ())]
        completions = [replace(one, score=score) for one, score in zip(group.completions, scores, strict=False)]
        return replace(group, completions=completions)

    # What an algorithm learns from as it is

    def _experience(self, models: Models, parts: Sequence[list[Group]], *, idle: bool) -> None:
        """Write the columns of ``experience`` onto the completions of all parts, each of which is scored at once."""
        batch = models.make_batch([group for part in parts for group in part], idle)
        pieces = [models.make_batch(part, idle) for part in parts if part]
        logps = _together(batch, [models.policy(piece) for piece in pieces])
        anchor = models.anchor
        anchors = None if anchor is None else _together(batch, [anchor(piece) for piece in pieces])
        columns = dict(self.algorithm.experience(batch, logps, anchors))
        if self.keep_logps:
            columns["old_logps"] = logps.logps
        if anchors is not None:
            columns[REFERENCE] = anchors.logps
        _attach(batch, columns)

    # What becomes pairs, labels or lists

    def _formed(self, models: Models, steps: Sequence[Step], own: dict[int, _Part]) -> list[Step]:
        """Steps of the groups that all ranks formed for them, dealt out anew: a prompt may give none, or several."""
        told = models.gather([self._made([own[id(micro)] for micro in step if id(micro) in own]) for step in steps])
        return [self._dealt(models, step, [part[number] for part in told]) for number, step in enumerate(steps)]

    def _made(self, parts: Sequence[_Part]) -> _Made:
        assert self.forming is not None
        made = _Made([], [], [])
        for part in parts:
            made.spare.append(part.stand_in)
            if part.micro.idle:
                continue
            for place, group in zip(part.micro.micro.part, part.scored, strict=True):
                formed = [] if group is None else self.forming.groups(group, part.stream)
                groups = [one for one in formed if differ(one)]
                self.cost.dropped += not groups
                made.formed.append((place, groups))
            sets = len(part.riding) // max(len(part.scored), 1)
            made.riding.extend(
                (number % sets, part.micro.micro.part[number // sets], group)
                for number, group in enumerate(part.riding)
            )
        return made

    def _dealt(self, models: Models, step: Step, made: Sequence[_Made]) -> Step:
        """This rank's micro-batches of a step, once the algorithm's ``collate`` has seen all of it."""
        assert self.forming is not None
        formed = sorted((one for part in made for one in part.formed), key=lambda one: one[0])
        riding = [one[2] for one in sorted((one for part in made for one in part.riding), key=lambda one: one[:2])]
        groups = [group for _, some in formed for group in some]
        least = self.algorithm.needs.least
        if len({tuple(group.prompt_ids) for group in groups}) < least:  # a batch of one prompt is no batch either
            stand_in = self._stand_in(next(group for part in made for group in part.spare))
            return [replace(micro, groups=[stand_in], idle=True) for micro in step]
        collated = self.algorithm.collate([*groups, *riding])
        used = min(len(step), len(groups) // least)
        sizes = [even(size, models.world) for size in even(len(groups), used)]
        parts = spread([group.length for group in groups], sizes, "kept" if least > 1 else "even")
        beside = spread([0] * len(riding), [even(size, models.world) for size in even(len(riding), used)], "kept")
        rest = collated[len(groups) :]
        own = [
            [*(collated[place] for place in places[models.rank]), *(rest[place] for place in more[models.rank])]
            for places, more in zip(parts, beside, strict=True)
        ]
        return [_micro(micro, own[number] if number < used else [], collated[0]) for number, micro in enumerate(step)]

    def _stand_in(self, group: Group) -> Group:
        """A group as the algorithm wants it, of a prompt with samples that teach nothing."""
        assert self.forming is not None
        formed, ids = self.forming.anyway(group)[0], group.prompt_ids
        # Collate may want several rows, and of different prompts.
        rows = [replace(formed, prompt_ids=[*ids, *ids[-1:] * number]) for number in range(self.algorithm.needs.least)]
        return self.algorithm.collate(rows)[0]


@dataclass(frozen=True)
class _Part:
    """A micro-batch of this rank: its prompts with scored samples, rows that ride along, and what stands in for it."""

    micro: MicroBatch
    scored: list[Group | None]
    riding: list[Group]
    stream: str
    stand_in: Group


@dataclass(frozen=True)
class _Made:
    """What one rank brings to a step: (place in the step, groups), (set, place, row that rides along), stand-ins."""

    formed: list[tuple[int, list[Group]]]
    riding: list[tuple[int, int, Group]]
    spare: list[Group]


def differ(group: Group) -> bool:
    """Whether those of a pair differ: a judge that is not sure of itself may score one text twice, and differently."""
    return all(group.completions[a].ids != group.completions[b].ids for a, b in group.pairs)


def _finite(group: Group) -> Group:
    """What stands in must not bring a NaN: the loss is multiplied by 0, and that does not take one away."""
    return replace(group, completions=[replace(one, score=one.score or 0.0) for one in group.completions])


def _micro(micro: MicroBatch, groups: list[Group], stand_in: Group) -> MicroBatch:
    return replace(micro, groups=groups or [stand_in], idle=not groups)


def _metrics(drawn: Sequence[tuple[Group, Verdict]], samples: int) -> dict[str, Tensor]:
    """What to log of the samples of some prompts, one number a sample or a prompt."""
    scores = [[score for score in found.samples if score is not None] for _, found in drawn]
    own = [one for group, _ in drawn for one in group.completions[:samples]]
    others = [one for group, _ in drawn for one in group.completions[samples:]]
    spread = torch.tensor([torch.tensor(some).std() if len(some) > 1 else 0.0 for some in scores if some])
    return {
        "reward": torch.tensor([score for some in scores for score in some]),
        "reward/std": spread,
        "reward/same": (spread == 0).float(),
        "length": torch.tensor([float(len(one.ids)) for one in own]),
        "finished": torch.tensor([float(one.finished) for one in own]),
        **({"opponent/finished": torch.tensor([float(one.finished) for one in others])} if others else {}),
    }


def _split(items: Sequence[T], sizes: Sequence[int]) -> list[list[T]]:
    rest = iter(items)
    return [list(islice(rest, size)) for size in sizes]


def _together(batch: Batch, pieces: Sequence[Scores]) -> Scores:
    """Scores of consecutive parts of ``batch`` as scores of the whole."""

    def joined(parts: Sequence[Tensor]) -> Tensor:
        table = parts[0].new_zeros(batch.mask.shape)
        start = 0
        for part in parts:
            rows, width = part.shape
            table[start : start + rows, :width] = part
            start += rows
        return table

    values = [piece.values for piece in pieces if piece.values is not None]
    return Scores(joined([piece.logps for piece in pieces]), batch.mask, values=joined(values) if values else None)


def _attach(batch: Batch, columns: dict[str, Tensor]) -> None:
    """Write per-completion numbers (C,) and per-token numbers (C, T) onto the completions themselves."""
    completions = [completion for group in batch.groups for completion in group.completions]
    lengths = batch.lengths.tolist()
    for name, values in columns.items():
        for completion, value, length in zip(completions, values.tolist(), lengths, strict=True):
            completion.columns[name] = value[:length] if isinstance(value, list) else value
