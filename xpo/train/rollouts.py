"""Rollouts: sample completions of prompts now, have them judged, and make of them what the algorithm learns from."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from xpo.api.algorithm import Algorithm, Opponent
from xpo.api.groups import Completion, Group
from xpo.errors import FeedbackError
from xpo.feedback.sampling import Mixture, Sampling, sample
from xpo.feedback.verdicts import Feedback, Verdict
from xpo.feedback.vllm import Server
from xpo.train.dealing import Dealing, Part, holding
from xpo.train.experience import attach_experience
from xpo.train.models import Models
from xpo.train.online import Forming
from xpo.train.sampling_cost import SamplingCost
from xpo.train.supply import Step

T = TypeVar("T")


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
        shown = _metrics(drawn, self.sampling.samples)
        self.metrics = {} if idle else {**shown, **self._judged(), **self._logged(shown)}
        self.cost.prompts += 0 if idle else len(drawn)
        scored = [self._scored(group, found) for group, found in drawn]
        stand_in = _finite(self._whole(*drawn[0]))
        if self.forming is not None:
            parts = [Part(*one, stand_in) for one in zip(real, _split(scored, sizes), riding, streams, strict=True)]
            return self._dealt(models, Dealing(self.algorithm, self.forming), steps, parts)
        known = [[] if idle else [one for one in some if one is not None] for some in _split(scored, sizes)]
        self.cost.dropped += 0 if idle else scored.count(None)
        learned = known if any(known) else [[stand_in]]
        attach_experience(self.algorithm, models, learned, keep_logps=self.keep_logps, idle=not any(known))
        own = {id(micro): [*some, *more] for micro, some, more in zip(real, known, riding, strict=True)}
        stand_in = next((group for some in known for group in some), stand_in)  # with the columns of experience
        return [[holding(micro, own.get(id(micro), []), stand_in) for micro in step] for step in steps]

    def _dealt(self, models: Models, dealing: Dealing, steps: Sequence[Step], parts: Sequence[Part]) -> list[Step]:
        """Steps of the groups that all ranks formed for them."""
        own = {id(part.micro): part for part in parts}
        mine = [dealing.bring([own[id(micro)] for micro in step if id(micro) in own]) for step in steps]
        self.cost.dropped += sum(one.dropped for one in mine)
        told = models.gather(mine)
        return [
            dealing.deal(step, [rank[number] for rank in told], models.world, models.rank)
            for number, step in enumerate(steps)
        ]

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

    def _logged(self, taken: Collection[str]) -> dict[str, Tensor]:
        """What reward functions had logged of these samples, under names that are not taken."""
        found = self.feedback.logged()
        if clash := sorted(found.keys() & set(taken)):
            raise FeedbackError(
                f"a reward function calls log_metric('{clash[0]}', ...), and the log has that already; choose "
                "another name"
            )
        return {name: torch.tensor(values) for name, values in found.items()}

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


def _finite(group: Group) -> Group:
    """What stands in must not bring a NaN: the loss is multiplied by 0, and that does not take one away."""
    return replace(group, completions=[replace(one, score=one.score or 0.0) for one in group.completions])


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
