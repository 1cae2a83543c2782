"""Tables that keep every word when they are piped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from xpo.train.marked import EQUAL, Cells


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, headed: bool = True) -> Table:
    """A plain table; its cells are text, never markup."""
    return _filled(headings, ([Text(cell) for cell in row] for row in rows), headed)


def marked(rows: Sequence[Cells], *, bold: bool) -> Table:
    """The same of rows with marks, header first.

    Args:
        bold: there is bold type where it is shown; stars stand for it in a file.
    """
    return _filled(
        [text for text, _ in rows[0]], ([_text(*cell, bold) for cell in row] for row in rows[1:]), headed=True
    )


def _text(text: str, mark: str, bold: bool) -> Text:
    if mark == "best" and text:
        return Text(text, style="bold") if bold else Text(f"**{text}**")
    return Text(f"{text} {EQUAL}" if mark == "equal" else text)


def _filled(headings: Sequence[str], rows: Iterable[Sequence[Text]], headed: bool) -> Table:
    made = Table(*headings, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=headed)
    for column in made.columns:
        column.overflow = "fold"
    for row in rows:
        made.add_row(*row)
    return made
