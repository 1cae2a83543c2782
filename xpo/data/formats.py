"""Rows of any TRL data set type become ``Row``: explicit or implicit prompt, text or messages, of every kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from trl import extract_prompt

from xpo.api.groups import COLUMNS, Kind
from xpo.data import content
from xpo.data.counts import Counts
from xpo.data.rows import Answer, Content, Row
from xpo.data.sources import Rows
from xpo.errors import DataError

#: Columns that make a set of rows data of a kind. The first kind that fits is what the data is by itself.
_MARKS: Mapping[Kind, frozenset[str]] = {
    "pairs": frozenset({"chosen", "rejected"}),
    "lists": frozenset({"prompt", "completions", "scores"}),
    "labels": frozenset({"prompt", "completion", "label"}),
    "forget": frozenset({"prompt", "completion", "split"}),
    "rollouts": frozenset({"prompt"}),
}
#: Columns of which one says how good a completion is, where numbers are asked for.
_NUMBERS = ("score", "reward")
#: Columns of data for language modelling, which holds demonstrations.
_MODELLING = ("messages", "conversations", "text")
_SIDES = {"forget": "forget", "retain": "retain", True: "forget", False: "retain"}


def detect(
    columns: Collection[str],
    *,
    want: Kind | None = None,
    forget_column: str | None = None,
    scored: bool = False,
    origin: str = "The data",
) -> Kind:
    """The kind of data that has ``columns``.

    Args:
        columns: names of the columns.
        want: taken when the columns allow it, for data that is of several kinds at once.
        forget_column: the column that says what to forget, when it is not called ``split``.
        scored: take a number in place of a label.
        origin: what messages call the data.
    """
    there = set(columns)
    if want == "labels" and scored and {"prompt", "completion"} <= there and there & {*_NUMBERS, "label"}:
        return "labels"
    if forget_column is not None:
        if forget_column not in there:
            raise DataError(f"{origin} has no column '{forget_column}'; it has {_names(columns)}")
        if {"prompt", "completion"} <= there:
            return "forget"
    fitting = [kind for kind, marks in _MARKS.items() if marks <= there]
    if want in fitting:
        return want
    if want == "demonstrations" and (
        there & set(_MODELLING) or ("completion" in there and fitting in (["rollouts"], []))
    ):
        return "demonstrations"
    if "completion" in there and fitting == ["rollouts"]:
        maybe = [name for name in columns if name.startswith("split")]
        hint = f" Columns that may say what to forget: {', '.join(maybe)}." if maybe else ""
        raise DataError(
            f"{origin} has prompt and completion but nothing that says how good the completion is; add a column "
            f"'label' (true or false), or 'split' ('forget' or 'retain').{hint} It has {_names(columns)}."
        )
    if fitting:
        return fitting[0]
    if there & set(_MODELLING):
        raise DataError(
            f"{origin} is for language modelling ({_names(columns)}): it says nothing about which completion "
            f"is better. {_wanted(want)}"
        )
    raise DataError(f"{origin} has the columns {_names(columns)}, which is no kind of preference data. {_wanted(want)}")


def canonical(
    rows: Rows,
    kind: Kind,
    counts: Counts,
    *,
    forget_column: str | None = None,
    extras: Mapping[str, Sequence[str]] | None = None,
    columns: Sequence[str] = (),
    scored: bool = False,
) -> list[Row]:
    """Every row checked and in one form; pairs of one and the same completion are dropped and counted.

    Args:
        rows: what was read.
        kind: what it is, from :func:`detect`.
        counts: counts ``rows``, ``identical`` and ``duplicates`` there.
        forget_column: the column that says what to forget, when it is not called ``split``.
        extras: further completions to read of pairs, by role -> the columns they may stand in.
        columns: numbers about a row to read where it has them.
        scored: every completion of pairs and labels must have a number.
    """
    read: dict[Kind, Callable[[Mapping[str, Any], str], Row | None]] = {
        "pairs": lambda row, place: _pair(row, place, extras or {}, scored),
        "lists": _list,
        "labels": lambda row, place: _labelled(row, place, scored),
        "demonstrations": _demonstrated,
        "forget": lambda row, place: _forget(row, place, forget_column or "split"),
        "rollouts": lambda row, place: Row(_prompt(row, place)),
    }
    found: list[Row] = []
    seen: set[str] = set()
    counts.rows += len(rows)
    for index, source in enumerate(rows.rows):
        place = rows.place(index)
        row = read[kind](source, place)
        if row is None:
            counts.identical += 1
            continue
        row.index, row.place, row.source = index, place, source
        for column in columns:
            number = _optional(source, place, column)
            if number is not None:
                row.columns[column] = number
        row.template = content.template(source, place)
        key = row.key()
        counts.duplicates += key in seen
        seen.add(key)
        found.append(row)
    return found


def _pair(row: Mapping[str, Any], place: str, extras: Mapping[str, Sequence[str]], scored: bool) -> Row | None:
    chosen, rejected = _cell(row, "chosen", place), _cell(row, "rejected", place)
    prompt: Content
    if _implicit(row, chosen, rejected):
        chosen, rejected = content.content(chosen, "chosen", place), content.content(rejected, "rejected", place)
        if chosen == rejected:
            return None
        if type(chosen) is not type(rejected):
            raise DataError(
                f"{place}: chosen and rejected are not both text or both messages; a row must be all one form"
            )
        if chosen[0] != rejected[0]:
            raise DataError(
                f"{place}: there is no column 'prompt', and chosen and rejected do not begin with the same "
                f"{'text' if isinstance(chosen, str) else 'message'} to take for it; add a column 'prompt'"
            )
        # A space before the divergence goes to the completions, as tokens begin with their space.
        split = extract_prompt({"chosen": chosen, "rejected": rejected})
        prompt, chosen, rejected = split["prompt"], split["chosen"], split["rejected"]
    else:
        prompt = _prompt(row, place)
    answers = [
        Answer(
            content.answer(cell, prompt, role, place),
            role,
            score=_optional(row, place, f"score_{role}", f"{role}_score"),
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
    margin = _optional(row, place, "margin")
    return Row(prompt, answers, [(0, 1)], columns={} if margin is None else {"margin": margin})


def _implicit(row: Mapping[str, Any], chosen: Any, rejected: Any) -> bool:
    # Some published data has the prompt as text and, once more, as the first message of both conversations.
    if "prompt" not in row:
        return True
    text = row["prompt"]
    first = [cell[0] for cell in (chosen, rejected) if isinstance(cell, list) and cell and isinstance(cell[0], Mapping)]
    return (
        isinstance(text, str)
        and len(first) == 2
        and all(message.get("role", message.get("from")) in ("user", "human", "system") for message in first)
    )


def _list(row: Mapping[str, Any], place: str) -> Row:
    prompt = _prompt(row, place)
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


def _labelled(row: Mapping[str, Any], place: str, scored: bool) -> Row:
    prompt = _prompt(row, place)
    completion = content.answer(_cell(row, "completion", place), prompt, "completion", place)
    score = _optional(row, place, *_NUMBERS) if scored else None
    if score is not None and row.get("label") is None:
        return Row(prompt, [Answer(completion, score=score)])
    label = content.label(_cell(row, "label", place), "label", place)
    return Row(prompt, [Answer(completion, label=label, score=float(label) if scored and score is None else score)])


def _demonstrated(row: Mapping[str, Any], place: str) -> Row:
    """A prompt with its completion; a conversation, whose last turn is the completion; or plain text, all of it."""
    column = next((name for name in _MODELLING if name in row and "completion" not in row), None)
    if column is None:
        prompt = _prompt(row, place)
        return Row(prompt, [Answer(content.answer(_cell(row, "completion", place), prompt, "completion", place))])
    said = content.content(row[column], column, place)
    if isinstance(said, str):
        return Row("", [Answer(said)])
    if len(said) < 2 or said[-1]["role"] != "assistant":
        raise content.refuse(
            place, column, "does not end with what the assistant says to somebody", "end it with an assistant message"
        )
    return Row(said[:-1], [Answer(said[-1:])])


def _forget(row: Mapping[str, Any], place: str, column: str) -> Row:
    prompt = _prompt(row, place)
    completion = content.answer(_cell(row, "completion", place), prompt, "completion", place)
    side = _cell(row, column, place)
    if not isinstance(side, (str, bool)) or side not in _SIDES:
        raise content.refuse(
            place, column, f"holds {content.shown(side)}", "it must be 'forget' or 'retain' (or true or false)"
        )
    return Row(prompt, [Answer(completion, _SIDES[side])])


def _prompt(row: Mapping[str, Any], place: str) -> Content:
    return content.content(_cell(row, "prompt", place), "prompt", place, empty=True)


def _cell(row: Mapping[str, Any], column: str, place: str) -> Any:
    if column not in row:
        raise DataError(f"{place}: column '{column}' is missing; the row has {_names(list(row))}")
    return row[column]


def _optional(row: Mapping[str, Any], place: str, *columns: str) -> float | None:
    present = [column for column in columns if row.get(column) is not None]
    return content.number(row[present[0]], present[0], place) if present else None


def _wanted(want: Kind | None) -> str:
    kinds = [want] if want is not None else list(COLUMNS)
    return "Columns needed: " + "; or ".join(COLUMNS[kind] for kind in kinds) + "."


def _names(columns: Collection[str]) -> str:
    return ", ".join(f"'{name}'" for name in columns) or "no columns"
