"""Tables that keep every word when they are piped, and the note about broken plugins."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xpo.plugins import Registry

# Wider than any row: without a terminal there is nothing to fit into, and a cut word cannot be found with grep.
_UNLIMITED = 10_000


def console() -> Console:
    """Standard output."""
    return Console(width=None if sys.stdout.isatty() else _UNLIMITED, highlight=False, soft_wrap=False)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, headed: bool = True) -> Table:
    """A plain table; its cells are text, never markup."""
    made = Table(*headings, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=headed)
    for column in made.columns:
        column.overflow = "fold"
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def warn(registry: Registry) -> None:
    """Say on standard error that plugins failed, if any did."""
    if warning := registry.warning():
        print(f"xpo: {warning}", file=sys.stderr)
