"""The directory of an evaluation: refused if something is there, and written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xpo.errors import SettingError
from xpo.train.place import check_place

RESULT = "eval.json"
#: What an evaluation leaves in its directory.
FILES = (RESULT, "eval.md", "eval.csv", "items.jsonl")
#: What the result says it is.
BENCHMARK = "xpo eval"


def claim(output_dir: str, overwrite: bool, inputs: Iterable[str] = ()) -> Path:
    """Check that an evaluation may be written to a directory, without writing anything.

    Args:
        inputs: models and files that are read, which must not be replaced.

    Raises:
        SettingError: something is there that must not be replaced, or nothing can be written there.
    """
    if not output_dir:
        raise SettingError("--output_dir is missing: the directory for eval.json, eval.md, eval.csv and items.jsonl")
    path = Path(output_dir).expanduser()
    place = check_place(path, replaced=True)
    there = sorted(entry.name for entry in path.iterdir()) if place == path else []
    if not there:
        return path
    names = ", ".join(there[:4]) + (", ..." if len(there) > 4 else "")
    if not set(there) <= set(FILES) or not _is_ours(path / RESULT):
        raise SettingError(
            f"--output_dir {path} holds {names}, which xpo eval did not write; choose another --output_dir"
        )
    if not overwrite:
        raise SettingError(
            f"--output_dir {path} holds an earlier evaluation ({names}); choose another --output_dir, or replace it "
            "with --overwrite"
        )
    for given in inputs:
        if path.resolve() in (Path(given).resolve(), *Path(given).resolve().parents):
            raise SettingError(f"--overwrite would remove {given}, which is read; choose another --output_dir")
    return path


def write(path: Path, texts: Mapping[str, str]) -> None:
    """Put the files of an evaluation into a directory that was claimed, all of them or none.

    Raises:
        SettingError: that cannot be done.
    """
    path = path.absolute()
    new, old = (path.with_name(f".{path.name}.{os.getpid()}.{what}") for what in ("new", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        for name, text in texts.items():
            # A lone surrogate, which JSON input may hold, becomes its escape: what JSON itself would write.
            with (new / name).open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise SettingError(f"{path}: {error.strerror or error}; free the way or choose another --output_dir") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)  # gone when all went well


def json_text(body: Mapping[str, Any], items: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object: ``body``, readable, and ``items`` as its last key, a line each."""
    head = json.dumps(body, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
    rows = ",\n    ".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in items)
    return f'{head},\n  "items": [\n    {rows}\n  ]\n}}\n'


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """A JSON object a line."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def _is_ours(file: Path) -> bool:
    try:
        return bool(json.loads(file.read_text(encoding="utf-8"))["benchmark"] == BENCHMARK)
    except (OSError, ValueError, TypeError, KeyError):
        return False
