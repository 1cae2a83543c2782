"""Scores of those who read words: reward functions, reward models, judges and preference models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedTokenizerBase

from xpo.api.groups import Group
from xpo.assess.items import Item
from xpo.assess.opinions import Asked, Opinion
from xpo.errors import FeedbackError
from xpo.feedback.judge_models import PreferenceJudge, RewardJudge
from xpo.feedback.judges import Judge, Question
from xpo.feedback.language_model import fits
from xpo.feedback.questions import Asker
from xpo.feedback.reward_models import ModelReward
from xpo.feedback.rewards import Reward, score_completions
from xpo.feedback.rubric import RubricJudge
from xpo.feedback.said import Verbatim, given_groups
from xpo.train.bar import Bar

#: Items that are put to a reward or a judge at once.
TOGETHER = 64


def groups_of(items: Sequence[Item], tokenizer: PreTrainedTokenizerBase | None) -> list[Group]:
    """Items whose completions are read to the letter; lengths are in tokens, or in words without a tokenizer.

    The columns of a row come along for functions that want them; of several labelled rows, those of the first.
    """
    return given_groups([item.row for item in items], tokenizer)


def rewarded(name: str, how: str, rewards: Sequence[Reward], items: Sequence[Item], label: str = "") -> Opinion:
    """The weighted sum of some rewards, of every completion.

    Raises:
        FeedbackError: a reward raises, or returns what cannot be used.
    """
    models = [one.function for one in rewards if isinstance(one.function, ModelReward)]
    groups, unread = groups_of(items, None), Counter[str]()
    for model in models:
        lengths = given_groups([item.row for item in items], model.scalar.tokenizer)
        fitting = {group.row for group in lengths if fits(model.scalar.model, group.length)}
        unread["too long for the reward model"] += sum(group.row not in fitting for group in groups)
        groups = [group for group in groups if group.row in fitting]
        # Texts of about the same length are read together.
        size = {group.row: group.length for group in lengths}
        groups.sort(key=lambda group: (-size[group.row], group.row))
    scores: dict[int, Sequence[float]] = {}
    with Bar(f"scoring by {label or name}", len(groups)) as bar:
        for start in range(0, len(groups), TOGETHER):
            some = groups[start : start + TOGETHER]
            found = score_completions(rewards, some, [group.completions for group in some], Verbatim())
            scores.update((group.row, one) for group, one in zip(some, found, strict=True))
            bar.step(len(some))
    if not scores:
        raise FeedbackError(f"reward '{name}': every row is too long for it")
    return Opinion(label or name, how, scores=scores, unread=+unread)


def judged(judge: Judge, items: Sequence[Item], device: torch.device, label: str = "") -> Opinion:
    """What a judge says of every preference, asked in both orders where the order could matter.

    Raises:
        FeedbackError: it cannot be reached, or came to no verdict at all.
    """
    ordered = order_matters(judge.ask)
    groups = groups_of(items, None)
    bind(judge, device)
    asked: dict[int, Sequence[Asked]] = {}
    unread = Counter[str]()
    with Bar(f"asking {label or judge.name}", len(items)) as bar:
        for start in range(0, len(items), TOGETHER):
            some = items[start : start + TOGETHER]
            questions = [
                Question(group, group.completions[better], group.completions[worse])
                for item, group in zip(some, groups[start : start + TOGETHER], strict=True)
                for better, worse in item.row.pairs
            ]
            answers = iter(compare(judge, questions, ordered))
            for item in some:
                asked[item.number] = [next(answers) for _ in item.row.pairs]
            bar.step(len(some))
    unread.update(judge.tally.failed)
    if not any(one.margin is not None for some in asked.values() for one in some):
        reasons = ", ".join(f"{count} {reason}" for reason, count in unread.most_common())
        raise FeedbackError(f"judge '{judge.name}' came to no verdict on any question ({reasons})")
    how = "asked which of two is better" + (", in both orders" if ordered else "")
    return Opinion(label or judge.name, how, asked=asked, ordered=ordered, unread=unread)


def compare(judge: Judge, questions: Sequence[Question], ordered: bool) -> list[Asked]:
    """Put questions, whose first completion is the better one, in both orders if ``ordered``.

    The order in which they are put is that of the words and not that of who is better, so that somebody who is asked
    the other way round is asked the same.
    """
    turned = [_text(one.first.ids) > _text(one.second.ids) for one in questions]
    as_put = [_turned(one) if turn else one for one, turn in zip(questions, turned, strict=True)]
    first = _odds(judge, as_put)
    second = _odds(judge, [_turned(one) for one in as_put]) if ordered else None
    found = []
    for place, turn in enumerate(turned):
        if second is None:
            one = first[place]
            margin = None if one is None else one - 0.5
            found.append(Asked(None, None, -margin if turn and margin is not None else margin))
            continue
        ahead, behind = (second[place], first[place]) if turn else (first[place], second[place])
        margin = None if ahead is None or behind is None else 0.5 * (ahead - behind)
        found.append(Asked(ahead, None if behind is None else 1.0 - behind, margin))
    return found


def order_matters(asker: Asker) -> bool:
    """Whether somebody could answer otherwise if the two changed places: not where each is read by itself."""
    return not isinstance(asker, RewardJudge | RubricJudge)


def bind(judge: Judge, device: torch.device) -> None:
    """Let a judge read words, with a model of its own, if it has one, on the device."""
    judge.bind(torch.nn.Linear(1, 1, device=device), Verbatim())


def _odds(judge: Judge, questions: Sequence[Question]) -> list[float | None]:
    """Probability that the first is preferred, in this very order."""
    if isinstance(judge.ask, PreferenceJudge):
        judge = replace(judge, ask=judge.ask.in_order())
    return replace(judge, both_orders=False).compare(questions)


def _turned(question: Question) -> Question:
    return Question(question.group, question.second, question.first)


def _text(ids: Sequence[int]) -> str:
    return Verbatim().decode(ids)  # type: ignore[arg-type]  # completions here hold their words
