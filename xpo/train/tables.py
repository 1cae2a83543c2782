"""Tables that keep every word when they are piped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, headed: bool = True) -> Table:
    """A plain table; its cells are text, never markup."""
    made = Table(*headings, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=headed)
    for column in made.columns:
        column.overflow = "fold"
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made
