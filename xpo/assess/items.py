"""What is judged: completions of a prompt of which some are known to be better than others, whatever kind held them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xpo.api.groups import COLUMNS, Kind
from xpo.assess.reading import ranked
from xpo.assess.settings import EvalSettings
from xpo.assess.subsets import column_of, rows_by_subset, subset_of
from xpo.data.counts import Counts
from xpo.data.formats import canonical, detect
from xpo.data.rows import Answer, Row
from xpo.data.sources import Rows
from xpo.errors import DataError, SettingError

#: Kinds of data that prefer one completion to another.
LABELLED: tuple[Kind, ...] = ("pairs", "lists", "labels")


@dataclass(frozen=True)
class Item:
    """A prompt, its completions, and which of them are better than which.

    Attributes:
        number: place among all items.
        rows: numbers of the data rows it was made of, from 0.
        subset: which subset it is of.
        row: prompt and completions; ``row.pairs`` are the preferences, as (better, worse).
    """

    number: int
    rows: tuple[int, ...]
    subset: str
    row: Row


@dataclass(frozen=True)
class Items:
    """All there is to judge.

    Attributes:
        items: the items.
        kind: of the data.
        empty: subset -> its rows without a preference, where it has no other.
        lines: what happened to the rows.
        column: the column of subsets; None where there is none.
    """

    items: list[Item]
    kind: Kind
    empty: Mapping[str, int]
    lines: list[str]
    column: str | None


def items_of(rows: Rows, settings: EvalSettings) -> Items:
    """The preferences of some rows.

    Raises:
        DataError: a row is not what it must be, or there is no preference at all.
        SettingError: there is no such column of subsets, or a setting has no effect on these rows.
    """
    column = column_of(rows, settings.own.subset_column)
    rows = ranked(rows)
    kind = detect(rows.columns, origin=rows.origin)
    if kind not in LABELLED:
        wanted = "; or ".join(COLUMNS[one] for one in LABELLED)
        raise DataError(
            f"{rows.origin} is data of the kind '{kind}', which prefers no completion to another. Columns needed: "
            f"{wanted}."
        )
    counts = Counts()
    found = canonical(rows, kind, counts)
    counts.duplicates = 0  # they count like any other here
    if settings.own.chat:
        found = _conversations(found, rows.origin)
    subsets = [subset_of(row, column) for row in found]
    made = _GROUPED[kind](found, subsets)
    whole = [item for item in made if item.row.pairs]
    lines = [*counts.lines(), *_lost(kind, made)]
    if not whole:
        raise DataError(f"{rows.origin}: no row prefers a completion to another. {'; '.join(lines)}.")
    names = {item.subset for item in whole}
    empty = {name: count for name, count in rows_by_subset(rows, column).items() if name not in names}
    most = settings.own.max_samples
    if most is not None and most < len(whole):
        lines.append(f"{most} of {len(whole)} are scored, always the same ones: --max_samples {most}")
        whole = _some(whole, most)
    return Items(_numbered(whole), kind, empty, lines, column)


def _conversations(rows: Sequence[Row], origin: str) -> list[Row]:
    if all(row.conversational for row in rows):
        raise SettingError(f"--chat has no effect here: the rows of {origin} are conversations already")

    def said(role: str, content: Any) -> Any:
        return [{"role": role, "content": content}] if isinstance(content, str) else content

    return [
        row
        if row.conversational
        else replace(
            row,
            prompt=said("user", row.prompt),
            answers=[replace(one, content=said("assistant", one.content)) for one in row.answers],
        )
        for row in rows
    ]


def _pairs(rows: Sequence[Row], subsets: Sequence[str]) -> list[Item]:
    return [Item(0, (row.index,), subset, row) for row, subset in zip(rows, subsets, strict=True)]


def _lists(rows: Sequence[Row], subsets: Sequence[str]) -> list[Item]:
    return [
        Item(0, (row.index,), subset, replace(row, pairs=_preferences(row.answers, _score)))
        for row, subset in zip(rows, subsets, strict=True)
    ]


def _labels(rows: Sequence[Row], subsets: Sequence[str]) -> list[Item]:
    """Completions of one prompt, in one subset, together: desirable ones are better than the others."""
    together: dict[tuple[str, str], list[Row]] = {}
    for row, subset in zip(rows, subsets, strict=True):
        together.setdefault((subset, row.prompt_key()), []).append(row)
    found = []
    for (subset, _), some in together.items():
        answers = [row.answers[0] for row in some]
        made = replace(some[0], answers=answers, pairs=_preferences(answers, _label))
        found.append(Item(0, tuple(row.index for row in some), subset, made))
    return found


_GROUPED: Mapping[Kind, Callable[[Sequence[Row], Sequence[str]], list[Item]]] = {
    "pairs": _pairs,
    "lists": _lists,
    "labels": _labels,
}


def _preferences(answers: Sequence[Answer], worth: Callable[[Answer], float]) -> list[tuple[int, int]]:
    return [
        (one, other)
        for one, better in enumerate(answers)
        for other, worse in enumerate(answers)
        if worth(better) > worth(worse) and better.content != worse.content
    ]


def _score(answer: Answer) -> float:
    assert answer.score is not None
    return answer.score


def _label(answer: Answer) -> float:
    assert answer.label is not None
    return float(answer.label)


def _lost(kind: Kind, made: Sequence[Item]) -> list[str]:
    """A line on what prefers nothing."""
    lost = sum(not item.row.pairs for item in made)
    if not lost:
        return []
    if kind == "labels":
        return [f"{lost} of {len(made)} prompts are left out: they have desirable completions or others, not both"]
    return [f"{lost} of {len(made)} rows are left out: no completion scores above another"]


def _some(items: Sequence[Item], most: int) -> list[Item]:
    """Those whose row has the smallest hash of its number, in the order of the data; fewer are some of more."""
    order = sorted(range(len(items)), key=lambda place: hashlib.sha256(str(items[place].rows[0]).encode()).digest())
    return [items[place] for place in sorted(order[:most])]


def _numbered(items: Sequence[Item]) -> list[Item]:
    """Items and their rows under the number they are known by from here on."""
    return [replace(item, number=number, row=replace(item.row, index=number)) for number, item in enumerate(items)]
