"""The records of this benchmark: where they begin, and when one can be gone on with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.frontier.methods import SWEEPS, Work
from benchmarks.records import Record, Records
from xpo.errors import SettingError
from xpo.train.machine import device

RECORDS = Records("frontier")


def begin(work: Work) -> Record:
    """A record of how much is measured, without runs yet."""
    machine = {**device(), "threads": torch.get_num_threads()}
    methods = {name: plain(sweep) for name, sweep in SWEEPS.items()}
    return RECORDS.begin(machine, work=plain(work), methods=methods, runs=[])


def plain(something: Any) -> Record:
    """A dataclass as JSON gives it back."""
    found: Record = json.loads(json.dumps(asdict(something)))
    return found


def resumed(path: Path, work: Work) -> Record:
    """A record to go on with.

    Raises:
        SettingError: its points are not like those that would be added.
    """
    record = RECORDS.read(path)
    if record["work"] != plain(work):
        raise SettingError(f"{path}: measured with {record['work']}, and not with {plain(work)}; begin a new record")
    record["methods"] |= {name: plain(sweep) for name, sweep in SWEEPS.items() if name not in record["methods"]}
    return record
