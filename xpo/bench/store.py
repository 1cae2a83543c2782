"""The files of a suite: what is in them, and going on with them.

``suite.json`` says what the suite is, every finished cell has one ``result.json``, and a cell without one has not been
run. Files are written whole or not at all, so it does not matter when a suite is stopped.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xpo.bench.cell import Cell
from xpo.bench.failure import Failure
from xpo.bench.suite import Suite
from xpo.errors import SettingError
from xpo.train.output import write_text

FORMAT = 1
SUITE, RESULT, JOB, LOG, START, RECORDS = "suite.json", "result.json", "job.json", "log.txt", "start", "records.json"
#: A file of ours that is being written, or was when its process was killed.
_HALF = re.compile(r"\.(job|result|suite|records|table|report)\.(json|md|csv|tex|html)\.\d+")

Body = dict[str, Any]


def describe(suite: Suite, data: str) -> Body:
    """``suite.json``.

    Args:
        data: fingerprint of the data.
    """
    return {
        "benchmark": "xpo bench",
        "format": FORMAT,
        "methods": dict(suite.methods),
        "seeds": list(suite.options.seeds),
        "shared": dict(suite.shared),
        "data": data,
        "notes": list(suite.notes),
        "cells": [cell.to_dict() for cell in suite.cells],
    }


def read_suite(path: Path) -> Body | None:
    """The suite of a directory; None where there is none yet.

    Raises:
        SettingError: there is a file, and it is no suite of this version.
    """
    file = path / SUITE
    if not file.exists():
        return None
    body = _read(file)
    if body is None or body.get("benchmark") != "xpo bench" or body.get("format") != FORMAT:
        raise SettingError(f"{file}: not a suite of xpo bench, or of another version of it; choose another directory")
    return body


def check_same(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    """Refuse a suite that differs from that of the directory by more than further cells.

    Raises:
        SettingError: naming what differs.
    """
    different = [
        f"{name} was {old['shared'].get(name)!r} and is {new['shared'].get(name)!r}"
        for name in dict.fromkeys([*old["shared"], *new["shared"]])
        if new["shared"].get(name) != old["shared"].get(name)
    ]
    if new["shared"]["validation"] and not old["shared"]["validation"]:
        different.append("settings are chosen on validation prompts, on which cells that are there were not examined")
    if old["data"] != new["data"] and not different:
        different = ["the data itself has changed"]
    if not different:
        there = {Cell.of(body).place for body in new["cells"]}
        missing = [Cell.of(body) for body in old["cells"] if Cell.of(body).place not in there]
        different = [_missing(missing[0], [Cell.of(body) for body in new["cells"]])] if missing else []
    if different:
        raise SettingError(
            f"--output_dir {path} holds another suite: {'; '.join(different)}. A suite may be given more methods, "
            "seeds and values to try; for anything else choose another --output_dir"
        )


def _missing(gone: Cell, cells: list[Cell]) -> str:
    """What a cell of before lacks now."""
    mine = [cell for cell in cells if cell.method == gone.method]
    if not mine:
        return f"{gone.method} was among the methods"
    if gone.seed not in {cell.seed for cell in mine}:
        return f"{gone.seed} was among the seeds"

    def changes(cell: Cell) -> list[str]:
        names = dict.fromkeys([*gone.settings, *cell.settings])
        return [
            f"{name} of {gone.method} was {gone.settings.get(name)!r} and is {cell.settings.get(name)!r}"
            for name in names
            if gone.settings.get(name) != cell.settings.get(name)
        ]

    nearest = min(map(changes, mine), key=len)
    return "; ".join(nearest) or f"the values tried with {gone.method} were {gone.setting or 'none'}, among others"


def result_of(path: Path, cell: Cell) -> Body | None:
    """What a cell left behind; None where it has not been run, or not to its end."""
    return _read(path / cell.place / RESULT)


def start_of(path: Path) -> Body | None:
    """What the start is like; None where it has not been examined."""
    return _read(path / START / RESULT)


def begin(folder: Path, job: Mapping[str, Any]) -> Path:
    """An empty folder with a job to do; its file."""
    # A process out of sight may still have a folder of its own in there; the result is what must be gone.
    shutil.rmtree(folder, ignore_errors=True)
    (folder / RESULT).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / JOB, json.dumps(job, indent=2, ensure_ascii=False) + "\n")
    return folder / JOB


def fail(folder: Path, failed: Failure) -> None:
    """Write down why there is no result; what a half-done run left goes."""
    shutil.rmtree(folder / "run", ignore_errors=True)
    sweep(folder)
    write_text(folder / RESULT, json.dumps({"failed": dict(failed)}, ensure_ascii=False) + "\n")


def sweep(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left half written."""
    for file in [one for one in folder.iterdir() if half_written(one)]:
        file.unlink(missing_ok=True)


def half_written(file: Path) -> bool:
    """Whether a file is one that was being written when its process was killed."""
    return _HALF.fullmatch(file.name) is not None


def write_json(path: Path, body: Mapping[str, Any]) -> None:
    """A file for people and programs, whole or not at all."""
    write_text(path, json.dumps(body, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _read(file: Path) -> Body | None:
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SettingError(f"{file}: cannot be read ({error}); remove it, and it is done again") from None
    return body if isinstance(body, dict) else None
