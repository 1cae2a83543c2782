"""Win rates: who of two answers each prompt better, by rewards or a judge, whichever of them is named first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from xpo.api.groups import Completion, Group
from xpo.assess.answers import Side, length_of, unit_of
from xpo.assess.opinions import Asked, agreed
from xpo.assess.texts import bind, compare, order_matters
from xpo.data.rows import Row
from xpo.errors import DataError, FeedbackError
from xpo.feedback.judges import Judge, Question
from xpo.feedback.rewards import Reward, score_completions
from xpo.feedback.said import Verbatim
from xpo.train.bar import Bar

#: Prompts whose answers are put to a reward or a judge at once.
TOGETHER = 64


@dataclass(frozen=True)
class Duel:
    """What was found about one model and the other, prompt by prompt.

    Attributes:
        name, against: the two.
        rows: the prompts both answered.
        values: prompt -> 1 for a win, 0.5 for a tie, 0 for a loss; without those that had no verdict.
        rewards: prompt -> of the two; empty with a judge.
        asked: prompt -> what the judge says, "better" being the first of the two; empty with rewards.
        ordered: whether the order could matter to the judge.
        lengths: prompt -> of the two, in ``unit``.
        failed: questions without a verdict, by reason.
    """

    name: str
    against: str
    rows: list[Row]
    values: dict[int, float]
    rewards: dict[int, tuple[float, float]]
    asked: dict[int, Asked]
    ordered: bool
    lengths: dict[int, tuple[int, int]]
    unit: str
    failed: dict[str, int] = field(default_factory=dict)


def duel(
    one: Side, other: Side, prompts: Sequence[Row], rewards: Sequence[Reward], judge: Judge | None, device: torch.device
) -> Duel:
    """Have the answers of two compared.

    Raises:
        DataError: there is no prompt that both answer.
        FeedbackError: a reward or the judge cannot be had, or came to no verdict at all.
    """
    rows = [row for row in prompts if row.index in one.answers and row.index in other.answers]
    if not rows:
        raise DataError(f"there is no prompt that both {one.name} and {other.name} answer")
    tokenizer, unit = unit_of(one, other)
    lengths = {row.index: (length_of(one, row, tokenizer), length_of(other, row, tokenizer)) for row in rows}
    pairs = [(row, one.answers[row.index], other.answers[row.index]) for row in rows]
    found = Duel(one.name, other.name, rows, {}, {}, {}, judge is not None and order_matters(judge.ask), lengths, unit)
    what = f"{one.name} against {other.name}"
    if judge is None:
        _rewarded(pairs, rewards, found, what)
    else:
        _judged(pairs, judge, found, what, device)
    return found


def _group(row: Row) -> Group:
    return Group([0], row=row.index, source={**row.source, "prompt": row.prompt})


def _rewarded(
    pairs: Sequence[tuple[Row, Completion, Completion]], rewards: Sequence[Reward], found: Duel, what: str
) -> None:
    # Each side is scored by itself, so that neither what stands beside an answer nor its place can matter.
    scores: list[list[float]] = []
    with Bar(f"scoring {what}", 2 * len(pairs)) as bar:
        for side in (1, 2):
            mine: list[float] = []
            for start in range(0, len(pairs), TOGETHER):
                some = pairs[start : start + TOGETHER]
                groups = [_group(pair[0]) for pair in some]
                answers = [[pair[1] if side == 1 else pair[2]] for pair in some]
                mine += [value for [value] in score_completions(rewards, groups, answers, Verbatim())]
                bar.step(len(some))
            scores.append(mine)
    for (row, _, _), new, old in zip(pairs, *scores, strict=True):
        found.rewards[row.index] = (new, old)
        found.values[row.index] = agreed(new - old)


def _judged(
    pairs: Sequence[tuple[Row, Completion, Completion]], judge: Judge, found: Duel, what: str, device: torch.device
) -> None:
    bind(judge, device)
    before = dict(judge.tally.failed)
    with Bar(f"asking about {what}", len(pairs)) as bar:
        for start in range(0, len(pairs), TOGETHER):
            some = pairs[start : start + TOGETHER]
            questions = [Question(_group(row), mine, theirs) for row, mine, theirs in some]
            for (row, _, _), asked in zip(some, compare(judge, questions, found.ordered), strict=True):
                found.asked[row.index] = asked
                if asked.margin is not None:
                    found.values[row.index] = agreed(asked.margin)
            bar.step(len(some))
    failed = {reason: count - before.get(reason, 0) for reason, count in judge.tally.failed.items()}
    found.failed.update({reason: count for reason, count in failed.items() if count})
    if not found.values:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.failed.items())
        raise FeedbackError(f"judge '{judge.name}' came to no verdict on any prompt ({reasons})")


def item_of(row: Row, duels: Sequence[Duel], sides: Mapping[str, Side]) -> dict[str, Any]:
    """What is known of a prompt and the answers to it, side by side."""
    against = duels[0].against
    body: dict[str, Any] = {"row": row.index, "place": row.place, "prompt": row.prompt, "answers": {}, "verdicts": {}}
    for name in (against, *(found.name for found in duels)):
        answer = sides[name].answers.get(row.index)
        if answer is not None:
            said: Any = answer.ids
            body["answers"][name] = {
                "completion": said.content,
                "finished": answer.finished if sides[name].sampled else None,
            }
    for found in duels:
        if row.index not in found.lengths:
            continue
        verdict: dict[str, Any] = {"value": found.values.get(row.index), "lengths": list(found.lengths[row.index])}
        if row.index in found.rewards:
            verdict["rewards"] = list(found.rewards[row.index])
        if row.index in found.asked:
            asked = found.asked[row.index]
            verdict |= {"shown_first": asked.better_first, "shown_second": asked.worse_first, "margin": asked.margin}
        body["verdicts"][found.name] = verdict
    return body
