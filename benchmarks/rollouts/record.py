"""Records: what was measured, as it was measured. They are added and never edited, and tables are made from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.throughput.record import RESULTS, Record, finish, in_order, save
from xpo.errors import SettingError

FORMAT = 1


def begin(threads: int, settings: Record) -> Record:
    """A record of where and with what is measured, without cases yet."""
    from xpo.train.machine import device, git_state, versions

    return {
        "benchmark": "rollouts",
        "format": FORMAT,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "machine": {**device(), "threads": threads},
        "versions": versions(),
        "git": git_state(Path(__file__).parent),
        **settings,
        "cases": [],
    }


def place(record: Mapping[str, Any], folder: Path) -> Path:
    """A file name of its own for a record: an earlier one of the same day stays."""
    stem = f"rollouts-{record['started'][:10]}"
    names = (f"{stem}{'' if number == 1 else f'-{number}'}.json" for number in range(1, 1000))
    return next(folder / name for name in names if not (folder / name).exists())


def read(path: Path) -> Record:
    """A record from its file."""
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"{path}: cannot be read as a record of the benchmark ({error})") from None
    if record.get("benchmark") != "rollouts" or record.get("format") != FORMAT:
        raise SettingError(f"{path}: not a record of this benchmark, or of another version of it")
    return record


def everything(folder: Path = RESULTS) -> list[Record]:
    """All records of a folder, oldest first."""
    return in_order(read(path) for path in folder.glob("rollouts-*.json"))


__all__ = ["RESULTS", "Record", "begin", "everything", "finish", "place", "read", "save"]
