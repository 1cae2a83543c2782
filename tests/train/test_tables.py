"""Tables on a terminal and in a file."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from xpo.train.marked import Cells
from xpo.train.tables import marked

ROWS: list[Cells] = [
    [("method", ""), ("reward", "")],
    [("one", ""), ("1.5", "best")],
    [("[two]", ""), ("1.4", "equal")],
]


@pytest.mark.parametrize(("terminal", "best"), [(True, "\x1b[1m1.5"), (False, "**1.5**")])
def test_the_best_is_told_from_the_rest_on_a_terminal_and_in_a_file(terminal: bool, best: str) -> None:
    stream = io.StringIO()
    console = Console(
        file=stream, force_terminal=terminal, width=80, color_system="standard" if terminal else None, _environ={}
    )
    console.print(marked(ROWS, bold=console.is_terminal))
    _, _, one, two, *_ = stream.getvalue().splitlines()
    assert best in one
    assert "[two]" in two
    assert "1.4 ≈" in two
    assert "**" not in two
