"""What labelling shows on stderr while it works."""

from __future__ import annotations

import io

from rich.console import Console

from xpo.train.bar import Bar


def shown(terminal: bool, every: float) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=120, color_system=None, _environ={})
    with Bar("label", 6, console, every, unit="prompt", done=2, told="1 rows") as bar:
        bar.step(2, "3 rows")
        bar.step(2, "5 rows")
    return stream.getvalue()


def test_lines_where_there_is_no_terminal() -> None:
    assert shown(False, 0.0).splitlines() == ["prompt 4/6  3 rows", "prompt 6/6  5 rows"]


def test_no_more_lines_than_anybody_reads() -> None:
    assert shown(False, 3600.0).splitlines() == ["prompt 6/6  5 rows"]


def test_a_bar_on_a_terminal() -> None:
    text = shown(True, 3600.0)
    assert "6/6" in text
    assert "5 rows" in text
    assert "prompt" not in text
