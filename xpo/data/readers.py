"""One row of each kind of data as ``Row``, every cell checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xpo.data import content, implicit
from xpo.data.counts import Counts
from xpo.data.rows import Answer, Content, Row
from xpo.errors import DataError

#: Columns of which one says how good a completion is, where numbers are asked for.
NUMBERS = ("score", "reward")
#: Columns of whole conversations, prompt and completion in one.
CONVERSATIONS = ("messages", "conversations")
#: Columns of data for language modelling, which holds demonstrations.
MODELLING = (*CONVERSATIONS, "text")
_PICTURES = ("images", "image")
_SIDES = {"forget": "forget", "retain": "retain", "true": "forget", "false": "retain", True: "forget", False: "retain"}


def pair(
    row: Mapping[str, Any], place: str, extras: Mapping[str, Sequence[str]], scored: bool, counts: Counts
) -> Row | None:
    """A prompt, or none of its own, with a better and a worse completion; None where the two are the same."""
    chosen, rejected = _cell(row, "chosen", place), _cell(row, "rejected", place)
    prompt: Content
    if implicit.applies(row):
        chosen, rejected = content.content(chosen, "chosen", place), content.content(rejected, "rejected", place)
        if chosen == rejected:
            return None
        prompt, chosen, rejected = implicit.taken(row, chosen, rejected, place, counts)
    else:
        prompt = prompted(row, place)
    answers = [
        Answer(
            content.answer(cell, prompt, role, place),
            role,
            score=optional(row, place, f"score_{role}", f"{role}_score"),
        )
        for role, cell in (("chosen", chosen), ("rejected", rejected))
    ]
    if answers[0].content == answers[1].content:
        return None
    for answer in answers if scored else ():
        if answer.score is None:
            raise content.refuse(
                place, f"score_{answer.role}", "is missing", "the method needs a number for every completion"
            )
    for role, columns in extras.items():
        there = [column for column in columns if row.get(column) is not None]
        if there:
            answers.append(Answer(content.answer(row[there[0]], prompt, there[0], place), role))
    margin = optional(row, place, "margin")
    return Row(prompt, answers, [(0, 1)], columns={} if margin is None else {"margin": margin})


def several(row: Mapping[str, Any], place: str) -> Row:
    """A prompt with a list of completions, and a number for each."""
    prompt = prompted(row, place)
    cells = content.listed(_cell(row, "completions", place), "completions", place)
    scores = content.listed(_cell(row, "scores", place), "scores", place)
    if len(cells) != len(scores):
        raise content.refuse(
            place, "scores", f"has {len(scores)} numbers for {len(cells)} completions", "there must be one a completion"
        )
    return Row(
        prompt,
        [
            Answer(
                content.answer(cell, prompt, f"completions[{number}]", place),
                score=content.number(score, f"scores[{number}]", place),
            )
            for number, (cell, score) in enumerate(zip(cells, scores, strict=True))
        ],
    )


def labelled(row: Mapping[str, Any], place: str, scored: bool, counts: Counts) -> Row:
    """A prompt with its completion, or a conversation whose last turn is that, and a label or a number."""
    column = _whole(row, CONVERSATIONS)
    if column is None:
        prompt = prompted(row, place)
        completion = content.answer(_cell(row, "completion", place), prompt, "completion", place)
    else:
        prompt, completion = _last_turn(row, column, place, counts)
    score = optional(row, place, *NUMBERS) if scored else None
    if score is not None and row.get("label") is None:
        return Row(prompt, [Answer(completion, score=score)])
    label = content.label(_cell(row, "label", place), "label", place)
    return Row(prompt, [Answer(completion, label=label, score=float(label) if scored and score is None else score)])


def demonstrated(row: Mapping[str, Any], place: str, counts: Counts) -> Row:
    """A prompt with its completion; a conversation, whose last turn is the completion; or plain text, all of it."""
    column = _whole(row, MODELLING)
    if column is None:
        prompt = prompted(row, place)
        return Row(prompt, [Answer(content.answer(_cell(row, "completion", place), prompt, "completion", place))])
    prompt, completion = _last_turn(row, column, place, counts)
    return Row(prompt, [Answer(completion)])


def _whole(row: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """The column that holds prompt and completion in one, if there is one."""
    return next((name for name in columns if name in row and "completion" not in row), None)


def _last_turn(row: Mapping[str, Any], column: str, place: str, counts: Counts) -> tuple[Content, Content]:
    """A conversation as its last message and all before it; plain text is its own completion."""
    said = content.content(row[column], column, place)
    if isinstance(said, str):
        return "", said
    if len(said) < 2 or said[-1]["role"] != "assistant":
        raise content.refuse(
            place, column, "does not end with what the assistant says to somebody", "end it with an assistant message"
        )
    prompt = said[:-1]
    counts.conversations += 1
    counts.earlier += sum(message["role"] == "assistant" for message in prompt)
    return prompt, content.answer(said[-1:], prompt, column, place)


def forget(row: Mapping[str, Any], place: str, column: str) -> Row:
    """A prompt with its completion, and whether to forget it."""
    prompt = prompted(row, place)
    completion = content.answer(_cell(row, "completion", place), prompt, "completion", place)
    side = _cell(row, column, place)
    side = side.strip().lower() if isinstance(side, str) else side
    if not isinstance(side, (str, bool)) or side not in _SIDES:
        raise content.refuse(
            place, column, f"holds {content.shown(side)}", "it must be 'forget' or 'retain' (or true or false)"
        )
    return Row(prompt, [Answer(completion, _SIDES[side])])


def refuse_pictures(row: Mapping[str, Any], place: str) -> None:
    """Raise a DataError for a row with pictures: left out without a word, the text would be about what is not there."""
    for column in _PICTURES:
        if row.get(column) is not None and row[column] not in ([], ""):
            raise content.refuse(
                place, column, "holds pictures", "only text can be trained on: remove the column to train without them"
            )


def prompted(row: Mapping[str, Any], place: str) -> Content:
    """The prompt in a column of its own."""
    return content.content(_cell(row, "prompt", place), "prompt", place, empty=True)


def _cell(row: Mapping[str, Any], column: str, place: str) -> Any:
    if column not in row:
        raise DataError(f"{place}: column '{column}' is missing; the row has {content.names(list(row))}")
    return row[column]


def optional(row: Mapping[str, Any], place: str, *columns: str) -> float | None:
    """A number from the first of some columns that the row has; None where it has none."""
    present = [column for column in columns if row.get(column) is not None]
    return content.number(row[present[0]], present[0], place) if present else None
