"""A folder for a cache, on a disk without reserve: those of tests are small."""

from __future__ import annotations

from pathlib import Path

import pytest

from xpo.models import shards


@pytest.fixture(autouse=True)
def _small_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "RESERVE", 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"
