"""Which folder must be writable: the output directory itself, or the one that holds it where it is replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xpo.errors import SettingError
from xpo.train.place import check_place


def test_who_is_asked_for_leave_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append(Path(path)) or True)
    there = tmp_path / "there"
    there.mkdir()
    assert check_place(there) == check_place(there, replaced=True) == there
    assert check_place(there / "a" / "b") == check_place(there / "a" / "b", replaced=True) == there
    assert asked == [there, tmp_path, there, there]
    assert list(there.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that takes no files")
def test_leave_to_write_is_not_enough_where_no_files_can_be() -> None:
    with pytest.raises(SettingError, match="/proc"):
        check_place(Path("/proc/there"))
