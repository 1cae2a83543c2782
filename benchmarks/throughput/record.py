"""The records of this benchmark: where they begin, and what their files are called."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from benchmarks.records import Record, Records

RECORDS = Records("throughput")


def begin(device_kind: str, threads: int | None, **settings: Any) -> Record:
    """A record without cases yet."""
    import torch

    from xpo.train.machine import device

    machine = {**device(torch_kind(device_kind)), "threads": threads or torch.get_num_threads(), "memory": _memory()}
    return RECORDS.begin(machine, **settings, models={}, data={}, cases=[])


def place(record: Record, folder: Path) -> Path:
    """A file name of its own for a record, with the day and the device."""
    kind = record["machine"]["kind"]
    label = "cpu" if kind == "cpu" else re.sub(r"[^a-z0-9]+", "-", str(record["machine"]["name"]).lower()).strip("-")
    return RECORDS.place(record, folder, label)


def torch_kind(name: str) -> str:
    """``cuda`` of ``cuda:1``."""
    return name.partition(":")[0]


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):  # Windows
        return None
