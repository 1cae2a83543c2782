"""Records: what was measured, as it was measured. They are added, never edited, and what is shown is made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xpo.errors import SettingError
from xpo.train.machine import git_state, versions

RESULTS = Path(__file__).parent / "results"
Record = dict[str, Any]


@dataclass(frozen=True)
class Records:
    """The records of a benchmark.

    Attributes:
        name: what their files begin with.
        format: a record of another format is not read.
    """

    name: str
    format: int = 1

    def begin(self, machine: Mapping[str, Any], **settings: Any) -> Record:
        """A record of where, with what and how is measured, without what is found."""
        return {
            "benchmark": self.name,
            "format": self.format,
            "started": _now(),
            "finished": None,
            "machine": dict(machine),
            "versions": versions(),
            "git": git_state(Path(__file__).parent),
            **settings,
        }

    def place(self, record: Mapping[str, Any], folder: Path, label: str = "") -> Path:
        """A file name of its own for a record, with its day and a label."""
        return unused(folder, "-".join(filter(None, [self.name, record["started"][:10], label])), ".json")

    def read(self, path: Path) -> Record:
        """A record from its file.

        Raises:
            SettingError: it is not a record of this benchmark.
        """
        try:
            record: Record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingError(f"{path}: cannot be read as a record of the benchmark ({error})") from None
        if record.get("benchmark") != self.name or record.get("format") != self.format:
            raise SettingError(f"{path}: not a record of this benchmark, or of another version of it")
        return record

    def everything(self, folder: Path = RESULTS) -> dict[Path, Record]:
        """All records of a folder and their files, oldest first."""
        found = [(path, self.read(path)) for path in folder.glob(f"{self.name}-*.json")]
        return dict(sorted(found, key=lambda one: str(one[1]["started"])))


def unused(folder: Path, stem: str, ending: str) -> Path:
    """A name that no file has yet: an earlier record of the same day stays."""
    names = (f"{stem}{'' if number == 1 else f'-{number}'}{ending}" for number in range(1, 1000))
    return next(folder / name for name in names if not (folder / name).exists())


def save(record: Record, path: Path) -> None:
    """Write the record whole or not at all; it is written after every run, as a later one may take hours and fail."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def finish(record: Record, path: Path) -> None:
    record["finished"] = _now()
    save(record, path)


def find(record: Mapping[str, Any], wanted: Mapping[str, Any]) -> Record | None:
    """The last run of a record with an identity."""
    found = [run for run in record["runs"] if all(run.get(key) == value for key, value in wanted.items())]
    return found[-1] if found else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
