"""What every mistake of a user must come to: exit status 2, one message and no traceback, and nothing written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from xpo.cli import main


def one_message(status: int, err: str) -> str:
    """The one message of a command that ended with ``status``, from what it wrote on stderr."""
    assert status == 2, err
    said = err.splitlines()
    starts = [number for number, line in enumerate(said) if line.startswith("xpo: ")]
    assert len(starts) == 1, err
    assert "Traceback" not in err
    return "\n".join(said[starts[0] :]).removeprefix("xpo: ")


def refused(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one message of a command in this process, after checking that it left the working folder as it was."""
    before = _held(Path())
    status = main(list(words))
    said = one_message(status, capsys.readouterr().err)
    assert _held(Path()) == before
    return said


def _held(folder: Path) -> dict[str, bytes | None]:
    """Path -> content of everything in a folder, but for what Python compiles of a user's file."""
    there = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {str(path): path.read_bytes() if path.is_file() else None for path in there}
