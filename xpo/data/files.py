"""Read one data file. Text formats are parsed here, so that a broken row is named by file and line."""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from xpo.data.quiet import quiet_datasets
from xpo.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet")
#: Suffixes that say "this is meant to be a file", readable or not, rather than the id of a data set on the hub.
DATA_LIKE = frozenset(
    {".jsonl", ".json", ".csv", ".parquet", ".gz", ".txt", ".tsv", ".arrow", ".xlsx", ".zip", ".ndjson"}
)

#: In CSV every cell is text; these columns hold something else. Text columns stay text: a completion may well be "4".
_CSV_JSON = frozenset({"completions", "scores", "tools", "chat_template_kwargs"})
_CSV_NUMBERS = frozenset({"margin", "score_chosen", "score_rejected", "chosen_score", "rejected_score"})
_CSV_LABELS = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True)
class Part:
    """A file among those the rows came from.

    Attributes:
        name: file name, for messages.
        start: index of its first row among all rows.
        unit: ``line`` or ``row``.
        numbers: the number of each row in that unit; empty when they simply count from 1.
    """

    name: str
    start: int
    unit: str
    numbers: Sequence[int] = ()

    def place(self, index: int) -> str:
        """Where the file's row ``index`` (from 0) stands."""
        return f"{self.name} {self.unit} {self.numbers[index] if self.numbers else index + 1}"


def suffix(path: Path) -> str:
    """The suffix that decides the format, ``.gz`` included."""
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() + last if last == ".gz" else last


def load(path: Path, start: int = 0) -> tuple[Part, list[dict[str, Any]]]:
    """The rows of one file, and how to name them; ``start`` is the index of the first among all rows."""
    kind = suffix(path)
    if kind not in SUFFIXES:
        raise DataError(f"{path.name}: cannot read '{kind or path.name}' files; accepted are {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} is empty")
    if kind == ".parquet":
        part, rows = Part(path.name, start, "row"), _parquet(path)
    else:
        text = _text(path)
        if kind.startswith(".csv"):
            part, rows = Part(path.name, start, "row"), _csv(path.name, text)
        elif kind.startswith(".json") and not kind.startswith(".jsonl") and text.lstrip()[:1] == "[":
            part, rows = Part(path.name, start, "row"), _array(path.name, text)
        else:
            rows, numbers = _lines(path.name, text)
            part = Part(path.name, start, "line", numbers)
    if not rows:
        raise DataError(f"{path.name} holds no rows")
    return part, rows


def _text(path: Path) -> str:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
        return raw.decode("utf-8-sig")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path.name} cannot be decompressed: {error}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path.name} line {line} is not UTF-8 ({error.reason}); convert the file to UTF-8") from error
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error.strerror or error}") from error


def _lines(name: str, text: str) -> tuple[list[dict[str, Any]], list[int]]:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    # Not splitlines(): JSON strings may hold U+2028 and friends, which only it takes for the end of a line.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{name} line {number} is not valid JSON: {error.msg} at column {error.colno}; "
                f"the file must hold one JSON object a line"
            ) from error
        rows.append(_object(row, f"{name} line {number}"))
        numbers.append(number)
    return rows, numbers


def _array(name: str, text: str) -> list[dict[str, Any]]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{name} line {error.lineno} is not valid JSON: {error.msg} at column {error.colno}") from error
    return [_object(row, f"{name} row {number}") for number, row in enumerate(content, 1)]


def _object(row: Any, place: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        kind = {list: "an array", str: "a string", type(None): "null"}.get(type(row), f"a {type(row).__name__}")
        raise DataError(f'{place} is {kind}; every row must be an object such as {{"prompt": "...", ...}}')
    return row


def _csv(name: str, text: str) -> list[dict[str, Any]]:
    # The module's default refuses cells above 128 KiB, which a long conversation exceeds.
    limit = csv.field_size_limit(sys.maxsize)
    try:
        header, *records = [record for record in csv.reader(text.splitlines(keepends=True)) if record]
    except csv.Error as error:
        raise DataError(f"{name} is not valid CSV: {error}") from error
    finally:
        csv.field_size_limit(limit)
    rows = []
    for number, record in enumerate(records, 1):
        if len(record) != len(header):
            raise DataError(
                f"{name} row {number} has {len(record)} cells, the header has {len(header)} ({', '.join(header)}); "
                f"quote cells that hold commas or line breaks"
            )
        pairs = zip(header, record, strict=True)
        rows.append({column: _cell(column, cell, f"{name} row {number}") for column, cell in pairs})
    return rows


def _cell(column: str, cell: str, place: str) -> Any:
    if column == "label":
        return _CSV_LABELS.get(cell.strip().lower(), cell)
    if column in _CSV_NUMBERS or column in _CSV_JSON:
        if not cell.strip():
            return None
        try:
            return float(cell) if column in _CSV_NUMBERS else json.loads(cell)
        except ValueError as error:
            what = "a number" if column in _CSV_NUMBERS else "JSON"
            raise DataError(f"{place}: column '{column}' must hold {what}, not {cell[:40]!r}") from error
    return cell


def _parquet(path: Path) -> list[dict[str, Any]]:
    try:
        with quiet_datasets() as cache:
            rows: list[dict[str, Any]] = Dataset.from_parquet(str(path), cache_dir=cache, keep_in_memory=True).to_list()
    except Exception as error:  # what a broken file raises depends on how it is broken
        cause = error.__cause__ or error
        raise DataError(f"{path.name} cannot be read as Parquet: {str(cause).splitlines()[0]}") from error
    return rows
