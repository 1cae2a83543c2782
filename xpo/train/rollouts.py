"""Rollouts: sample completions of the step's prompts now, score them, and let the algorithm make experience of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from xpo.api.algorithm import Algorithm
from xpo.api.batch import Batch, Scores
from xpo.api.groups import Completion, Group
from xpo.data.order import MicroBatch
from xpo.feedback.rewards import Reward, score_completions
from xpo.feedback.sampling import Sampling, sample

MakeBatch = Callable[[Sequence[Group], bool], Batch]
Score = Callable[[Batch], Scores]


@dataclass
class Rollouts:
    """Turns the prompts of an optimiser step into groups of scored completions.

    Attributes:
        algorithm, tokenizer, rewards, sampling: what is sampled, how, and how it is rewarded.
        missing_eos_penalty: taken off the reward of a completion that did not end by itself.
        keep_logps: store the sampling policy's log-probs, for steps that reuse a rollout.
        seconds, tokens: cost of sampling so far on this rank, and what it made.
    """

    algorithm: Algorithm[Any]
    tokenizer: PreTrainedTokenizerBase
    rewards: Sequence[Reward]
    sampling: Sampling
    missing_eos_penalty: float = 0.0
    keep_logps: bool = False
    seconds: float = 0.0
    tokens: int = 0
    metrics: dict[str, Tensor] = field(default_factory=dict)

    def fill(
        self,
        model: torch.nn.Module,
        micros: Sequence[MicroBatch],
        make_batch: MakeBatch,
        policy: Score,
        reference: Score | None,
        *,
        stream: str,
    ) -> list[MicroBatch]:
        """The same micro-batches with K completions in every group and the columns of ``experience`` on them.

        Every rank must call it, with idle micro-batches too: experience may take means over all ranks.
        """
        real = [micro for micro in micros if not micro.idle] or list(micros[:1])
        # Rows that ride along have their completions.
        riding = [[group for group in micro.groups if group.completions] for micro in real]
        real = [replace(micro, groups=[group for group in micro.groups if not group.completions]) for micro in real]
        groups = [group for micro in real for group in micro.groups]
        filled = self._sampled(model, groups, stream)
        idle = real[0].idle
        batch = make_batch(filled, idle)
        cuts = [len(micro.groups) for micro in real]
        pieces = [make_batch(part, idle) for part in _split(filled, cuts)]
        logps = _together(batch, [policy(piece) for piece in pieces])
        anchors = None if reference is None else _together(batch, [reference(piece) for piece in pieces])
        columns = dict(self.algorithm.experience(batch, logps, anchors))
        if self.keep_logps:
            columns["old_logps"] = logps.logps
        _attach(batch, columns)
        self.metrics = {} if idle else self._metrics(batch, columns)
        parts = iter(_split(filled, cuts))
        done = iter([replace(micro, groups=[*next(parts), *some]) for micro, some in zip(real, riding, strict=True)])
        stand_in = filled[:1]
        return [replace(micro, groups=stand_in) if micro.idle else next(done) for micro in micros]

    def rehearse(self, model: torch.nn.Module, groups: Sequence[Group]) -> None:
        """Sample and judge some prompts, so that a reward that cannot be used shows before anything is written."""
        completions = sample(model, self.tokenizer, groups, self.sampling, stream="rehearsal")
        score_completions(self.rewards, groups, completions, self.tokenizer)

    def _sampled(self, model: torch.nn.Module, groups: Sequence[Group], stream: str) -> list[Group]:
        completions = sample(model, self.tokenizer, groups, self.sampling, stream=stream)
        self.tokens += sum(len(completion.ids) for some in completions for completion in some)
        scores = score_completions(self.rewards, groups, completions, self.tokenizer)
        return [
            replace(group, completions=[self._scored(one, score) for one, score in zip(some, values, strict=True)])
            for group, some, values in zip(groups, completions, scores, strict=True)
        ]

    def _scored(self, completion: Completion, score: float) -> Completion:
        return replace(completion, score=score if completion.finished else score - self.missing_eos_penalty)

    def _metrics(self, batch: Batch, columns: dict[str, Tensor]) -> dict[str, Tensor]:
        finished = [completion.finished for group in batch.groups for completion in group.completions]
        spread = batch.lists(batch.scores).std(-1)
        return {
            "reward": batch.scores,
            "reward/std": spread,
            "reward/same": (spread == 0).to(batch.scores.dtype),
            "length": batch.lengths.to(batch.scores.dtype),
            "finished": torch.tensor(finished, dtype=batch.scores.dtype),
        }


def _split(groups: Sequence[Group], sizes: Sequence[int]) -> list[list[Group]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(list(groups[start : start + size]))
        start += size
    return parts


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
