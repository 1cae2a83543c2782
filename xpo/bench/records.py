"""``records.json``: all that is known of a suite. Tables and the page are made of it and of nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xpo.bench.cell import Cell
from xpo.bench.curves import curves_of
from xpo.bench.reading import words_of
from xpo.bench.store import FORMAT, LOG, read_suite, result_of, start_of
from xpo.errors import SettingError

Body = dict[str, Any]


def collect(path: Path) -> Body:
    """The records of a directory, from the files its cells left.

    Raises:
        SettingError: there is no suite.
    """
    suite = read_suite(path)
    if suite is None:
        raise SettingError(f"{path}: there is no suite here; run one with xpo bench --algos ... --output_dir {path}")
    start = start_of(path)
    if start is None:
        raise SettingError(f"{path}: the suite has not begun; give its command without --table")
    return {
        "benchmark": "xpo bench",
        "format": FORMAT,
        **{name: suite[name] for name in ("methods", "seeds", "shared", "data", "notes")},
        "start": start,
        "cells": [_cell(path, Cell.of(body), suite["shared"]) for body in suite["cells"]],
    }


def _cell(path: Path, cell: Cell, shared: Body) -> Body:
    result = result_of(path, cell)
    status = "missing" if result is None else "failed" if "failed" in result else "done"
    bought = status == "done" and shared["budget_tokens"] is not None
    return {
        **cell.to_dict(),
        "setting": cell.setting,
        "folder": cell.place,
        "log": f"{cell.place}/{LOG}",
        "command": command(cell, result["steps"] if bought and result else None),
        "status": status,
        **(result or {}),
        **({"curves": curves_of(path / cell.place)} if status == "done" else {}),
    }


def command(cell: Cell, steps: int | None = None) -> list[str]:
    """What trains the same model by hand.

    Args:
        steps: those that a budget of tokens bought, which training by hand knows nothing of.
    """
    settings = cell.settings if steps is None else {**cell.settings, "max_steps": steps}
    return ["xpo", "train", "--algo", cell.algo, *words_of(settings), "--seed", str(cell.seed)]


def done(records: Mapping[str, Any], method: str, setting: str | None = None) -> list[Body]:
    """The finished cells of a method, of one of its settings or of all, by seed."""
    found = [
        cell
        for cell in records["cells"]
        if cell["method"] == method and cell["status"] == "done" and setting in (None, cell["setting"])
    ]
    return sorted(found, key=lambda cell: int(cell["seed"]))


def settings_of(records: Mapping[str, Any], method: str) -> list[str]:
    """The settings of a method, in the order they were asked for."""
    return list(dict.fromkeys(cell["setting"] for cell in records["cells"] if cell["method"] == method))
