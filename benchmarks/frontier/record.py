"""Records: what was measured, as it was measured. Runs are added and never edited; what is shown is made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.frontier.methods import SWEEPS, Work
from benchmarks.throughput.record import RESULTS, Record, finish, save
from xpo.errors import SettingError
from xpo.train.machine import device, git_state, versions

FORMAT = 1


def begin(work: Work) -> Record:
    """A record of where, with what and how much is measured, without runs yet."""
    return {
        "benchmark": "frontier",
        "format": FORMAT,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "machine": {**device(), "threads": torch.get_num_threads()},
        "versions": versions(),
        "git": git_state(Path(__file__).parent),
        "work": plain(work),
        "methods": {name: plain(sweep) for name, sweep in SWEEPS.items()},
        "runs": [],
    }


def plain(something: Any) -> Record:
    """A dataclass as JSON gives it back."""
    found: Record = json.loads(json.dumps(asdict(something)))
    return found


def place(record: Mapping[str, Any], folder: Path) -> Path:
    """A file name of its own for a record: an earlier one of the same day stays."""
    stem = f"frontier-{record['started'][:10]}"
    names = (f"{stem}{'' if number == 1 else f'-{number}'}.json" for number in range(1, 1000))
    return next(folder / name for name in names if not (folder / name).exists())


def read(path: Path) -> Record:
    """A record from its file."""
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"{path}: cannot be read as a record of the benchmark ({error})") from None
    if record.get("benchmark") != "frontier" or record.get("format") != FORMAT:
        raise SettingError(f"{path}: not a record of this benchmark, or of another version of it")
    return record


def resumed(path: Path, work: Work) -> Record:
    """A record to go on with.

    Raises:
        SettingError: its points are not like those that would be added.
    """
    record = read(path)
    if record["work"] != plain(work):
        raise SettingError(f"{path}: measured with {record['work']}, and not with {plain(work)}; begin a new record")
    record["methods"] |= {name: plain(sweep) for name, sweep in SWEEPS.items() if name not in record["methods"]}
    return record


def files(folder: Path = RESULTS) -> list[Path]:
    """The files of all records of a folder, oldest first."""
    found = {str(record["started"]): path for path in folder.glob("frontier-*.json") for record in [read(path)]}
    return [found[started] for started in sorted(found)]


def find(record: Mapping[str, Any], wanted: Mapping[str, Any]) -> Record | None:
    """The run of a record with an identity."""
    found = [run for run in record["runs"] if all(run.get(key) == value for key, value in wanted.items())]
    return found[-1] if found else None


__all__ = ["RESULTS", "Record", "begin", "files", "find", "finish", "place", "read", "resumed", "save"]
