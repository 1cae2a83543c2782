"""Scores of sampled completions: rewards, or probabilities of being preferred to other answers of the same prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from xpo.api.groups import Completion, Group
from xpo.feedback.judges import Judge, Question
from xpo.feedback.rewards import Reward, score_completions

#: Log-odds beyond which a verdict counts as certain: a judge may say 0 or 1.
CERTAIN = 30.0


@dataclass(frozen=True)
class Verdict:
    """What was found about the answers to one prompt.

    Attributes:
        samples: score of each sample; None where the judge came to no verdict.
        opponents: the same of an opponent's completions.
    """

    samples: list[float | None]
    opponents: list[float | None] = field(default_factory=list)


@dataclass
class Feedback:
    """Rewards or a judge, and what becomes of their opinions.

    Attributes:
        tokenizer: of the policy.
        rewards: summed with their weights.
        judge: who prefers one completion to another, in place of rewards.
        wins: scores are mean probabilities of being preferred, as ``Needs.wins`` says; None for rewards as they are.
            The opinion of a judge always becomes such a probability.
        missing_eos_penalty: taken off the reward of a completion that did not end by itself; off the log-odds of being
            preferred, where there is no reward.
        missing_eos_score: the reward of such a completion, whatever else it would have been.
    """

    tokenizer: PreTrainedTokenizerBase
    rewards: Sequence[Reward] = ()
    judge: Judge | None = None
    wins: Literal["others", "all"] | None = None
    missing_eos_penalty: float = 0.0
    missing_eos_score: float | None = None

    def verdicts(
        self,
        groups: Sequence[Group],
        samples: Sequence[Sequence[Completion]],
        opponents: Sequence[Sequence[Completion]] | None = None,
    ) -> list[Verdict]:
        """What there is to say about the samples of each prompt, and the completions of an opponent."""
        others: Sequence[Sequence[Completion]] = opponents or [()] * len(groups)
        together = [[*some, *more] for some, more in zip(samples, others, strict=True)]
        counts = [len(some) for some in samples]
        if self.judge is None:
            rewards = self._rewards(groups, together)
            if self.wins is None:
                return [Verdict(list(one[:k]), list(one[k:])) for one, k in zip(rewards, counts, strict=True)]
            odds: Sequence[Sequence[Sequence[float | None]]] = [[[a - b for b in one] for a in one] for one in rewards]
        else:
            odds = self._judged(groups, together, counts)
        return [self._wins(one, k) for one, k in zip(odds, counts, strict=True)]

    def attend(self, state: Callable[[], Any]) -> None:
        """Tell reward functions of the trainer whose samples they see; ``state`` gives its ``TrainerState``."""
        for reward in self.rewards:
            reward.loop.state = state

    def logged(self) -> dict[str, list[float]]:
        """Numbers by name that reward functions had logged of the completions they saw last."""
        return {name: values for reward in self.rewards for name, values in reward.loop.metrics.items()}

    def told(self, group: Group, completion: Completion) -> Mapping[str, Any]:
        """What reward functions told of a completion by column, if it is one of those they saw last."""
        return {
            column: value for reward in self.rewards for column, value in reward.loop.told(group, completion).items()
        }

    def _rewards(self, groups: Sequence[Group], completions: Sequence[Sequence[Completion]]) -> list[list[float]]:
        rewards = score_completions(self.rewards, groups, completions, self.tokenizer)
        return [
            [score if one.finished else self._cut(score) for one, score in zip(some, scores, strict=True)]
            for some, scores in zip(completions, rewards, strict=True)
        ]

    def _cut(self, score: float) -> float:
        return score - self.missing_eos_penalty if self.missing_eos_score is None else self.missing_eos_score

    def _judged(
        self, groups: Sequence[Group], completions: Sequence[Sequence[Completion]], counts: Sequence[int]
    ) -> list[list[list[float | None]]]:
        """Log-odds that one completion of a prompt is preferred to another, for the pairs that somebody asks about."""
        assert self.judge is not None
        pairs = [
            [
                (a, b)
                for b in range(len(some))
                for a in range(b)
                # Opponents are not compared with each other, nor samples where there are opponents.
                if (a < k <= b if len(some) > k else b < k)
            ]
            for some, k in zip(completions, counts, strict=True)
        ]
        questions = [
            Question(group, some[a], some[b])
            for group, some, asked in zip(groups, completions, pairs, strict=True)
            for a, b in asked
        ]
        answers = iter(self.judge.compare(questions))
        found: list[list[list[float | None]]] = []
        for some, asked in zip(completions, pairs, strict=True):
            table: list[list[float | None]] = [[None] * len(some) for _ in some]
            for a, b in asked:
                odds = _odds(next(answers))
                if odds is not None:
                    odds += self.missing_eos_penalty * (some[a].finished - some[b].finished)
                    table[a][b], table[b][a] = odds, -odds
            found.append(table)
        return found

    def _wins(self, odds: Sequence[Sequence[float | None]], k: int) -> Verdict:
        """Mean probabilities from log-odds of every pair; those without a verdict are left out of the mean."""
        rivals = range(k, len(odds)) if len(odds) > k else range(k)
        itself = self.wins == "all" and len(odds) == k

        def mean(own: int, against: Sequence[int]) -> float | None:
            found = [odds[own][other] for other in against if other != own]
            known = [_sigmoid(one) for one in found if one is not None] + [0.5] * itself
            return sum(known) / len(known) if len(known) > itself else None

        return Verdict([mean(own, rivals) for own in range(k)], [mean(own, range(k)) for own in range(k, len(odds))])


def _odds(probability: float | None) -> float | None:
    if probability is None:
        return None
    if probability in (0.0, 1.0):
        return CERTAIN if probability else -CERTAIN
    return math.log(probability) - math.log1p(-probability)


def _sigmoid(odds: float) -> float:
    if abs(odds) >= CERTAIN:
        return float(odds > 0)
    return 1.0 / (1.0 + math.exp(-odds))
