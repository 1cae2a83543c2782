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


def marked(rows: Sequence[Cells]) -> Table:
    """The same of rows with marks, header first."""
    return _filled([text for text, _ in rows[0]], ([_text(*cell) for cell in row] for row in rows[1:]), headed=True)


def _text(text: str, mark: str) -> Text:
    return Text(f"{text} {EQUAL}" if mark == "equal" else text, style="bold" if mark == "best" else "")


def _filled(headings: Sequence[str], rows: Iterable[Sequence[Text]], headed: bool) -> Table:
    made = Table(*headings, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=headed)
    for column in made.columns:
        column.overflow = "fold"
    for row in rows:
        made.add_row(*row)
    return made
