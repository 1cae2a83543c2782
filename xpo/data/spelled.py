"""Conversations in cells of text, as CSV holds them: JSON of a list of messages, or what Python prints for one."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from typing import Any

from xpo.data.content import refuse
from xpo.data.sources import Rows

#: How such a cell begins, as JSON and as Python writes it.
_BEGIN = re.compile(r"\s*\[\s*\{\s*['\"](?:role|content|from|value)['\"]\s*:")


def read_cells(rows: Rows, columns: Iterable[str]) -> tuple[Rows, list[str]]:
    """The rows with such cells as lists of messages, and a sentence on every column that has some.

    A column is read so where all its cells are of that form. Where only some are, it is taken for text, some of which
    happens to be about messages.

    Args:
        rows: as they were read.
        columns: those that may hold messages.

    Raises:
        DataError: a cell that begins like messages cannot be read.
    """
    lines: list[str] = []
    found = rows
    for column in columns:
        cells = [row[column] for row in rows.rows if row.get(column) is not None]
        like = sum(isinstance(cell, str) and _BEGIN.match(cell) is not None for cell in cells)
        if like and like == len(cells):
            found = _read(found, column)
            lines.append(f"Column '{column}' holds messages written as text; they are read as messages.")
        elif like:
            lines.append(
                f"{like} of {len(cells)} cells of column '{column}' look like messages written as text. The others do "
                f"not, so all are taken as the text they are."
            )
    return found, lines


def _read(rows: Rows, column: str) -> Rows:
    made = [
        row if row.get(column) is None else {**row, column: _messages(row[column], column, rows.place(index))}
        for index, row in enumerate(rows.rows)
    ]
    return Rows(made, rows.origin, rows.parts, rows.numbers)


def _messages(cell: str, column: str, place: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(cell)
        except (ValueError, SyntaxError):
            continue
    raise refuse(
        place,
        column,
        "looks like messages, but is neither valid JSON nor a Python list",
        "write every cell with json.dumps(), or the rows as JSONL",
    )
