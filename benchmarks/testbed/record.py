"""Records: what was measured, as it was measured. Runs are added and never edited, and tables are made from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.throughput.record import RESULTS, Record, finish, in_order, save
from xpo.errors import SettingError
from xpo.train.machine import device, git_state, versions

FORMAT = 1


def begin() -> Record:
    """A record of where and with what is measured, without runs yet."""
    return {
        "benchmark": "testbed",
        "format": FORMAT,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "machine": {**device(), "threads": torch.get_num_threads()},
        "versions": versions(),
        "git": git_state(Path(__file__).parent),
        "experiments": {},
        "runs": [],
    }


def place(record: Mapping[str, Any], folder: Path) -> Path:
    """A file name of its own for a record: an earlier one of the same day stays."""
    stem = f"testbed-{record['started'][:10]}"
    names = (f"{stem}{'' if number == 1 else f'-{number}'}.json" for number in range(1, 1000))
    return next(folder / name for name in names if not (folder / name).exists())


def read(path: Path) -> Record:
    """A record from its file."""
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"{path}: cannot be read as a record of the benchmark ({error})") from None
    if record.get("benchmark") != "testbed" or record.get("format") != FORMAT:
        raise SettingError(f"{path}: not a record of this benchmark, or of another version of it")
    return record


def everything(folder: Path = RESULTS) -> list[Record]:
    """All records of a folder, oldest first."""
    return in_order(read(path) for path in folder.glob("testbed-*.json"))


def find(record: Mapping[str, Any], wanted: Mapping[str, Any]) -> Record | None:
    """The last run of a record with an identity."""
    found = [run for run in record["runs"] if all(run.get(key) == value for key, value in wanted.items())]
    return found[-1] if found else None


__all__ = ["RESULTS", "Record", "begin", "everything", "find", "finish", "place", "read", "save"]
