"""Look at a model from outside: preferences on held-out completions, and samples for held-out prompts.

The same look before and after training makes the table at the end of a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from xpo.api.batch import Batch
from xpo.api.groups import Completion, Group
from xpo.feedback.judges import Judge, Question
from xpo.feedback.rewards import Reward, score_completions
from xpo.feedback.sampling import Sampling, sample
from xpo.models.reference import Reference
from xpo.models.scoring import PLAIN, Engine, score
from xpo.train.intervals import mean_interval, paired_interval, win_interval
from xpo.train.record import Row, Sample

#: Name of the row that says how far the policy went from where it started.
KL = "KL to the start"

#: Role -> name of the row that says how unlikely its completions are.
LIKELIHOODS = {
    "forget": "NLL a token, to forget",
    "retain": "NLL a token, to retain",
    "completion": "NLL a token, demonstrations",
}

Preference = tuple[int, int]  # (better, worse), as positions among all completions


@dataclass(frozen=True)
class View:
    """What one model does on the held-out material.

    Attributes:
        logps: log-probability of each held-out completion, summed over its tokens.
        groups: the held-out prompts, each with the completion the model sampled.
        texts: those completions as text.
        rewards: their rewards; empty without a reward.
        measured: further numbers, one an item, by name: likelihoods, or what the method of a reward model measures.
    """

    logps: list[float]
    groups: list[Group]
    texts: list[str]
    rewards: list[float]
    measured: Mapping[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Examiner:
    """The held-out material and the ways to judge it.

    Attributes:
        tokenizer: of the models that are looked at.
        compared: groups whose completions are known to be better and worse.
        prompts: groups to sample one completion for.
        rewards: judges of sampled completions.
        sampling: how to sample.
        engine: how completions are computed.
        rows: groups scored at once.
        told: groups whose likelihood tells something by itself: to forget, to retain, demonstrated.
        judge: compares what was sampled before and after, where there is no reward.
    """

    tokenizer: PreTrainedTokenizerBase
    compared: Sequence[Group]
    prompts: Sequence[Group]
    rewards: Sequence[Reward]
    sampling: Sampling
    engine: Engine = PLAIN
    rows: int = 16
    told: Sequence[Group] = ()
    judge: Judge | None = None

    def look(self, model: Any) -> View:
        """Score the held-out completions and sample for the held-out prompts."""
        logps = self._logps(model, self.compared)
        sampled = sample(model, self.tokenizer, self.prompts, self.sampling, stream="examine") if self.prompts else []
        groups = [replace(group, completions=some) for group, some in zip(self.prompts, sampled, strict=True)]
        texts = [self.tokenizer.decode(group.completions[0].ids, skip_special_tokens=True) for group in groups]
        rewards: list[float] = []
        if self.rewards and groups:
            scores = score_completions(self.rewards, groups, sampled, self.tokenizer)
            rewards = [one for some in scores for one in some]
        return View(logps, groups, texts, rewards, self._likelihoods(model))

    def compare(self, before: View, after: View, model: Any, start: Reference | None) -> list[Row]:
        """The table: ``model`` is the trained policy, ``start`` what it was."""
        likely = [
            _means(name, old, after.measured[name], "nats", "up" if name == LIKELIHOODS["forget"] else "down")
            for name, old in before.measured.items()
        ]
        return [*likely, *self._preference_rows(before, after), *self._sample_rows(before, after, model, start)]

    def samples(self, before: View, after: View, count: int) -> list[Sample]:
        """Prompts with both completions side by side."""
        prompts = [_text(group, self.tokenizer) for group in before.groups[:count]]
        return [Sample(*row) for row in zip(prompts, before.texts[:count], after.texts[:count], strict=True)]

    def _preference_rows(self, before: View, after: View) -> list[Row]:
        preferences = known_preferences(self.compared)
        if not preferences and self.told:
            return []
        if not preferences:
            missing = "no held-out preferences: pass --eval_size 0.05 or --eval_dataset"
            return [Row("preference accuracy", None, None, "%", "up", note=missing)]
        ratios = [new - old for new, old in zip(after.logps, before.logps, strict=True)]
        rows = [
            Row(
                "preference accuracy (implicit reward)",
                0.5,
                accuracy(ratios, preferences),
                "%",
                "up",
                note="share of held-out preferences whose better completion gained more log-probability; "
                "50% before training by definition",
            ),
            Row(
                "preference accuracy (log-prob per token)",
                accuracy(self._per_token(before.logps), preferences),
                accuracy(self._per_token(after.logps), preferences),
                "%",
                "up",
            ),
        ]
        return rows

    def _per_token(self, logps: Sequence[float]) -> list[float]:
        lengths = [max(len(completion.ids), 1) for group in self.compared for completion in group.completions]
        return [value / length for value, length in zip(logps, lengths, strict=True)]

    def _sample_rows(self, before: View, after: View, model: Any, start: Reference | None) -> list[Row]:
        if not before.groups:
            return []
        rows = []
        if before.rewards:
            wins = sum(new > old for new, old in zip(after.rewards, before.rewards, strict=True))
            ties = sum(new == old for new, old in zip(after.rewards, before.rewards, strict=True))
            rate, low, high = win_interval(wins, len(after.rewards) - wins - ties, ties)
            rows.append(
                Row(
                    "win rate against the start",
                    0.5,
                    rate,
                    "%",
                    "up",
                    interval_after=(low, high),
                    note="a tie is half a win",
                )
            )
            rows.append(_means("mean reward", before.rewards, after.rewards, better="up"))
        elif self.judge is not None:
            rows.append(self._judged(self.judge, before, after))
        else:
            rows.append(Row("win rate against the start", None, None, "%", "up", note="no reward to judge by"))
        if start is not None:
            new, old = self._logps(model, after.groups), self._logps_of(start, after.groups)
            kl = mean_interval([a - b for a, b in zip(new, old, strict=True)])
            rows.append(Row(KL, 0.0, kl[0], "nats", None, interval_after=kl.interval))
        lengths = [[float(len(group.completions[0].ids)) for group in view.groups] for view in (before, after)]
        rows.append(_means("mean length", lengths[0], lengths[1], unit="tokens"))
        ended = [[float(group.completions[0].finished) for group in view.groups] for view in (before, after)]
        rows.append(Row("ended by itself", sum(ended[0]) / len(ended[0]), sum(ended[1]) / len(ended[1]), "%", "up"))
        return rows

    def _judged(self, judge: Judge, before: View, after: View) -> Row:
        questions = [
            Question(new, new.completions[0], old.completions[0])
            for new, old in zip(after.groups, before.groups, strict=True)
        ]
        known = [one for one in judge.compare(questions) if one is not None]
        missing = len(questions) - len(known)
        note = "mean probability that the judge prefers the trained model" + (
            f"; no verdict on {missing} of {len(questions)} prompts" if missing else ""
        )
        if not known:
            return Row("win rate against the start", None, None, "%", "up", note=note)
        mean = mean_interval(known)
        return Row("win rate against the start", 0.5, mean[0], "%", "up", interval_after=mean.interval, note=note)

    def _likelihoods(self, model: Any) -> dict[str, list[float]]:
        """Negative log-likelihood a token of each completion that is told about, by what it is."""
        found: dict[str, list[float]] = {}
        completions = [completion for group in self.told for completion in group.completions]
        for completion, logp in zip(completions, self._logps(model, self.told), strict=True):
            found.setdefault(LIKELIHOODS[completion.role], []).append(-logp / max(len(completion.ids), 1))
        return found

    def _logps(self, model: Any, groups: Sequence[Group]) -> list[float]:
        training = model.training
        model.eval()
        with torch.no_grad():
            found = [score(model, batch, self.engine).sum() for batch in self._batches(groups, model.device)]
        model.train(training)
        return torch.cat(found).tolist() if found else []

    def _logps_of(self, start: Reference, groups: Sequence[Group]) -> list[float]:
        device = next(start.model.parameters()).device
        return torch.cat([start.score(batch).sum() for batch in self._batches(groups, device)]).tolist()

    def _batches(self, groups: Sequence[Group], device: torch.device) -> list[Batch]:
        return [Batch.of(groups[i : i + self.rows], device=device) for i in range(0, len(groups), self.rows)]


def known_preferences(groups: Sequence[Group]) -> list[Preference]:
    """Every known preference, by position among all completions: pairs, different scores, or labels across groups."""
    found: list[Preference] = []
    good, bad, start = [], [], 0
    for group in groups:
        completions = group.completions
        found += [(start + a, start + b) for a, b in group.pairs]
        if not group.pairs:
            found += [(start + a, start + b) for a, b in _by_score(completions)]
        good += [start + i for i, completion in enumerate(completions) if completion.label is True]
        bad += [start + i for i, completion in enumerate(completions) if completion.label is False]
        start += len(completions)
    return found or [(better, worse) for better in good for worse in bad]


def accuracy(values: Sequence[float], preferences: Sequence[Preference]) -> float:
    """Share of preferences that ``values`` agree with; a tie agrees by half."""
    agreed = sum(1.0 if values[a] > values[b] else 0.5 if values[a] == values[b] else 0.0 for a, b in preferences)
    return agreed / len(preferences)


def _by_score(completions: Sequence[Completion]) -> list[Preference]:
    scores = [completion.score for completion in completions]
    return [
        (a, b)
        for a, left in enumerate(scores)
        for b, right in enumerate(scores)
        if left is not None and right is not None and left > right
    ]


def _means(name: str, before: Sequence[float], after: Sequence[float], unit: str = "", better: Any = None) -> Row:
    old, new, change = mean_interval(before), mean_interval(after), paired_interval(before, after)
    return Row(name, old[0], new[0], unit, better, old.interval, new.interval, change.interval)


def _text(group: Group, tokenizer: PreTrainedTokenizerBase) -> str:
    prompt = group.source.get("prompt")
    if isinstance(prompt, list):
        return "\n".join(str(message.get("content", "")) for message in prompt)
    return prompt if isinstance(prompt, str) else str(tokenizer.decode(group.prompt_ids, skip_special_tokens=True))
