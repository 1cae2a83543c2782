"""Read rows from a file, a folder or the hub, remembering where each came from."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from xpo.data import files, folders, hub
from xpo.errors import DataError, did_you_mean


@dataclass(frozen=True)
class Rows:
    """Rows of data and their origin.

    Attributes:
        rows: the rows, each a mapping from column to value.
        origin: what messages call the whole: a file name, a folder, ``hub-id[train]``.
        parts: the files the rows were read from, in order; empty when ``origin`` says it all.
        numbers: index of each row in what was read, when these are only some of it.
    """

    rows: Sequence[Mapping[str, Any]]
    origin: str
    parts: tuple[files.Part, ...] = ()
    numbers: Sequence[int] | None = None

    @classmethod
    def of(cls, rows: Any, origin: str = "data", *, split: str = "train") -> Rows:
        """Rows from Python.

        Args:
            rows: dicts in a list or anything else that can be gone through, a ``Dataset``, a ``DatasetDict``, a data
                frame of pandas or polars, a table of Arrow, or ``Rows`` themselves.
            origin: what messages call them.
            split: which one of a ``DatasetDict``.
        """
        if isinstance(rows, Rows):
            return rows
        if isinstance(rows, DatasetDict):
            if split not in rows:
                raise _unknown_split(split, origin, rows)
            rows, origin = rows[split], f"{origin}[{split}]"
        rows = _listed(rows, origin)
        if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
            raise DataError(
                f"{origin}: a {type(rows).__name__} is no data set; pass a list of dicts, a datasets.Dataset, a "
                f"datasets.DatasetDict or a data frame, or read a file with xpo.data.sources.read()"
            )
        found = list(rows)
        for number, row in enumerate(found, 1):
            if not isinstance(row, Mapping):
                raise DataError(f"{origin} row {number} is a {type(row).__name__}; every row must be a dict by column")
        if not found:
            raise DataError(f"{origin} holds no rows")
        return cls(found, origin)

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, index: int) -> str:
        """Where row ``index`` (from 0) stands, as a person would look it up: ``pairs.jsonl line 17``."""
        index = index if self.numbers is None else self.numbers[index]
        if not self.parts:
            return f"{self.origin} row {index + 1}"
        part = self.parts[bisect_right(self._starts, index) - 1]
        return part.place(index - part.start)

    def select(self, indices: Sequence[int], note: str = "") -> Rows:
        """Some of the rows, which keep their places; ``note`` is added to the origin."""
        numbers = [index if self.numbers is None else self.numbers[index] for index in indices]
        return Rows([self.rows[index] for index in indices], self.origin + note, self.parts, numbers)

    @property
    def columns(self) -> list[str]:
        """The columns that occur, in order of first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content: the same rows in the same order have the same one, whatever file held them."""
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
        return digest.hexdigest()

    @cached_property
    def _starts(self) -> list[int]:
        return [part.start for part in self.parts]


def read(spec: str, *, split: str = "train", config: str | None = None) -> Rows:
    """Read one split of a data set.

    Args:
        spec: a file (.jsonl, .json, .csv, .parquet; .gz of the first three), a folder of such files, a folder that
            ``datasets`` saved, or the id of a data set on the hub.
        split: which split; a single file and a folder without split names have ``train`` only.
        config: the configuration of a hub data set that has several.
    """
    path = Path(spec).expanduser()
    if path.is_dir():
        if folders.is_saved(path):
            return Rows.of(folders.load(path, split), f"{path.name}[{split}]")
        by_split = folders.splits(path)
        if split not in by_split:
            raise _unknown_split(split, spec, by_split)
        return _from_files(by_split[split], spec)
    if path.exists():
        if split != "train":
            raise _unknown_split(split, spec, ["train"])
        return _from_files([path], path.name)
    if _is_path(spec):
        raise DataError(_missing(path))
    return Rows.of(hub.load(spec, config, split, near=_near(path)), f"{spec}[{split}]")


def splits(spec: str, config: str | None = None) -> list[str]:
    """The splits ``read`` would accept for ``spec``."""
    path = Path(spec).expanduser()
    if path.is_dir():
        return folders.saved_splits(path) if folders.is_saved(path) else list(folders.splits(path))
    if path.exists():
        return ["train"]
    if _is_path(spec):
        raise DataError(_missing(path))
    return hub.splits(spec, config, near=_near(path))


def _listed(rows: Any, origin: str) -> Any:
    """The rows of a table as dicts; what is no table, as it is. None of these libraries is imported for it."""
    if hasattr(rows, "iloc") and hasattr(rows, "columns") and callable(getattr(rows, "to_dict", None)):
        try:
            # Unlike pandas' own to_dict() this makes nulls of NaN, and lists of arrays.
            rows = Dataset.from_pandas(rows, preserve_index=False)
        except Exception as error:  # what Arrow makes of a column of mixed types
            raise DataError(
                f"{origin}: the data frame cannot be read: {error}; every column must hold one type, or pass "
                f'frame.to_dict(orient="records")'
            ) from error
    for method in ("to_list", "to_pylist", "to_dicts"):  # of datasets, of Arrow and of polars
        if not isinstance(rows, Mapping) and callable(getattr(rows, method, None)):
            return getattr(rows, method)()
    return rows


def _from_files(paths: Sequence[Path], origin: str) -> Rows:
    rows: list[dict[str, Any]] = []
    parts: list[files.Part] = []
    for path in paths:
        part, content = files.load(path, start=len(rows))
        parts.append(part)
        rows.extend(content)
    return Rows(rows, origin, tuple(parts))


def _is_path(spec: str) -> bool:
    # A hub id is "name" or "owner/name": no suffix of a data file, no further slash, nothing that starts like a path.
    return (
        spec.startswith((".", "/", "~", "\\"))
        or spec.count("/") > 1
        or "\\" in spec
        or Path(spec).suffix.lower() in files.DATA_LIKE
    )


def _near(path: Path) -> str:
    folder = path.parent
    return did_you_mean(path.name, [entry.name for entry in folder.iterdir()]) if folder.is_dir() else ""


def _missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no data file '{path}': the folder '{path.parent}' does not exist."
    return f"There is no data file '{path}'.{_near(path)}"


def _unknown_split(split: str, origin: str, known: Iterable[str]) -> DataError:
    known = [str(name) for name in known]
    return DataError(f"{origin} has no split '{split}'; it has {', '.join(known)}.{did_you_mean(split, known)}")
