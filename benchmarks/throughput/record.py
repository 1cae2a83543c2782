"""Records: what was measured, as it was measured. They are added and never edited, and tables are made from them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xpo.errors import SettingError

FORMAT = 1
RESULTS = Path(__file__).resolve().parents[1] / "results"
Record = dict[str, Any]


def begin(device_kind: str, threads: int | None, settings: Record) -> Record:
    """A record of where and with what is measured, without cases yet."""
    import torch

    from xpo.train.machine import device, git_state, versions

    machine = device(torch_kind(device_kind))
    return {
        "benchmark": "throughput",
        "format": FORMAT,
        "started": _now(),
        "finished": None,
        "machine": {**machine, "threads": threads or torch.get_num_threads(), "memory": _memory()},
        "versions": versions(),
        "git": git_state(Path(__file__).parent),
        **settings,
        "models": {},
        "data": {},
        "cases": [],
    }


def place(record: Record, folder: Path) -> Path:
    """A file name of its own for a record: an earlier one of the same day stays."""
    kind = record["machine"]["kind"]
    label = "cpu" if kind == "cpu" else re.sub(r"[^a-z0-9]+", "-", str(record["machine"]["name"]).lower()).strip("-")
    stem = f"throughput-{record['started'][:10]}-{label}"
    names = (f"{stem}{'' if number == 1 else f'-{number}'}.json" for number in range(1, 1000))
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


def read(path: Path) -> Record:
    """A record from its file."""
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"{path}: cannot be read as a record of the benchmark ({error})") from None
    if record.get("benchmark") != "throughput" or record.get("format") != FORMAT:
        raise SettingError(f"{path}: not a record of this benchmark, or of another version of it")
    return record


def everything(folder: Path = RESULTS) -> list[Record]:
    """All records of a folder, oldest first."""
    return in_order(read(path) for path in folder.glob("throughput-*.json"))


def in_order(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda record: str(record["started"]))


def torch_kind(name: str) -> str:
    """``cuda`` of ``cuda:1``."""
    return name.partition(":")[0]


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # Windows
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
