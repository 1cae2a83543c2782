"""Rows of any TRL data set type become ``Row``: explicit or implicit prompt, text or messages, of every kind."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from xpo.api.groups import COLUMNS, Kind
from xpo.data import content, implicit, readers
from xpo.data.counts import Counts
from xpo.data.readers import CONVERSATIONS, MODELLING, NUMBERS
from xpo.data.rows import Row
from xpo.data.sources import Rows
from xpo.data.spelled import read_cells
from xpo.errors import DataError

#: Columns that make a set of rows data of a kind. The first kind that fits is what the data is by itself.
_MARKS: Mapping[Kind, frozenset[str]] = {
    "pairs": frozenset({"chosen", "rejected"}),
    "lists": frozenset({"prompt", "completions", "scores"}),
    "labels": frozenset({"prompt", "completion", "label"}),
    "forget": frozenset({"prompt", "completion", "split"}),
    "rollouts": frozenset({"prompt"}),
}
#: Columns whose cells may be messages.
_MESSAGES = ("prompt", "chosen", "rejected", "completion", *CONVERSATIONS)


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
    graded = there & {"label", *(NUMBERS if want == "labels" and scored else ())}
    if want == "labels" and graded and {"prompt", "completion"} <= there:
        return "labels"
    if forget_column is not None:
        if forget_column not in there:
            raise DataError(f"{origin} has no column '{forget_column}'; it has {_names(columns)}")
        if {"prompt", "completion"} <= there:
            return "forget"
    fitting = [kind for kind, marks in _MARKS.items() if marks <= there]
    if want in fitting:
        return want
    if want in ("labels", None) and graded and there & set(CONVERSATIONS) and fitting in (["rollouts"], []):
        return "labels"
    if want == "demonstrations" and (
        there & set(MODELLING) or ("completion" in there and fitting in (["rollouts"], []))
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
    if there & set(MODELLING):
        raise DataError(
            f"{origin} is for language modelling ({_names(columns)}): it says nothing about which completion "
            f"is better. {_wanted(want)}"
        )
    raise DataError(
        f"{origin} has the columns {_names(columns)}, which is no kind of preference data. {_wanted(want)}"
        f"{implicit.rename(list(columns))}"
    )


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

    Conversations written as text are read as conversations, and ``counts.notes`` says so.

    Args:
        rows: what was read.
        kind: what it is, from :func:`detect`.
        counts: counts ``rows``, ``identical``, ``duplicates`` and what became of prompts and turns there.
        forget_column: the column that says what to forget, when it is not called ``split``.
        extras: further completions to read of pairs, by role -> the columns they may stand in.
        columns: numbers about a row to read where it has them.
        scored: every completion of pairs and labels must have a number.
    """
    read: dict[Kind, Callable[[Mapping[str, Any], str], Row | None]] = {
        "pairs": lambda row, place: readers.pair(row, place, extras or {}, scored, counts),
        "lists": readers.several,
        "labels": lambda row, place: readers.labelled(row, place, scored, counts),
        "demonstrations": lambda row, place: readers.demonstrated(row, place, counts),
        "forget": lambda row, place: readers.forget(row, place, forget_column or "split"),
        "rollouts": lambda row, place: Row(readers.prompted(row, place)),
    }
    found: list[Row] = []
    seen: set[str] = set()
    counts.rows += len(rows)
    rows, notes = read_cells(rows, [*_MESSAGES, *(column for names in (extras or {}).values() for column in names)])
    counts.notes += notes
    for index, source in enumerate(rows.rows):
        place = rows.place(index)
        readers.refuse_pictures(source, place)
        row = read[kind](source, place)
        if row is None:
            counts.identical += 1
            continue
        row.index, row.place, row.source = index, place, source
        for column in columns:
            number = readers.optional(source, place, column)
            if number is not None:
                row.columns[column] = number
        row.template = content.template(source, place)
        counts.systems += implicit.unread(source, row.prompt)
        key = row.key()
        counts.duplicates += key in seen
        seen.add(key)
        found.append(row)
    return found


def _wanted(want: Kind | None) -> str:
    kinds = [want] if want is not None else list(COLUMNS)
    return "Columns needed: " + "; or ".join(COLUMNS[kind] for kind in kinds) + "."


def _names(columns: Collection[str]) -> str:
    return content.names(columns) or "no columns"
