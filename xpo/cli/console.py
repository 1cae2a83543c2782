"""Standard output for tables, and the note about broken plugins."""

from __future__ import annotations

import sys

from rich.console import Console

from xpo.plugins import Registry

# Wider than any row: without a terminal there is nothing to fit into, and a cut word cannot be found with grep.
_UNLIMITED = 10_000


def console() -> Console:
    """Standard output."""
    return Console(width=None if sys.stdout.isatty() else _UNLIMITED, highlight=False, soft_wrap=False)


def warn(registry: Registry) -> None:
    """Say on standard error that plugins failed, if any did."""
    if warning := registry.warning():
        print(f"xpo: {warning}", file=sys.stderr)
