"""Folders: data files whose names say the split, or what ``datasets`` saved with ``save_to_disk``."""

from __future__ import annotations

import re
from pathlib import Path

from datasets import Dataset, DatasetDict, load_from_disk

from xpo.data import files
from xpo.data.quiet import quiet_datasets
from xpo.errors import DataError, did_you_mean

_SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}")
#: ``val`` and ``dev`` only as whole words: values.jsonl and devices.jsonl are no validation data.
_NAMED = re.compile(r"(train|test|validation)|(?:valid|val|dev)(?![a-z])")
#: Files that describe a data set rather than hold it.
_ABOUT = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"})


def is_saved(path: Path) -> bool:
    """Whether ``datasets`` saved this folder."""
    return (path / "dataset_dict.json").exists() or (path / "state.json").exists()


def saved_splits(path: Path) -> list[str]:
    """The splits of a saved folder."""
    data = _load(path)
    return [str(name) for name in data] if isinstance(data, DatasetDict) else ["train"]


def load(path: Path, split: str) -> Dataset:
    """One split of a saved folder."""
    data = _load(path)
    known = [str(name) for name in data] if isinstance(data, DatasetDict) else ["train"]
    if split not in known:
        raise DataError(f"{path} has no split '{split}'; it has {', '.join(known)}.{did_you_mean(split, known)}")
    return data[split] if isinstance(data, DatasetDict) else data


def _load(path: Path) -> Dataset | DatasetDict:
    try:
        with quiet_datasets():
            return load_from_disk(str(path), keep_in_memory=True)
    except Exception as error:  # what a damaged folder raises depends on the damage
        raise DataError(f"{path} looks like a saved data set but cannot be loaded: {error}") from error


def splits(path: Path) -> dict[str, list[Path]]:
    """Split -> files of a folder of data files; all is ``train`` when no name says a split."""
    found = _data_files(path) or _data_files(path / "data")
    if not found:
        raise DataError(f"The folder '{path}' holds no data files; accepted are {', '.join(files.SUFFIXES)}")
    by_split: dict[str, list[Path]] = {}
    unnamed = []
    for file in found:
        split = _split_of(file)
        if split is None:
            unnamed.append(file)
        else:
            by_split.setdefault(split, []).append(file)
    if by_split and unnamed:
        # Taking only some of the files without a word would be a loss nobody notices.
        raise DataError(
            f"The folder '{path}' holds files of the splits {', '.join(by_split)} and also "
            f"{', '.join(file.name for file in unnamed[:3])}, which name no split; name one file, or rename those"
        )
    return by_split or {"train": unnamed}


def _data_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(
        file
        for file in path.iterdir()
        if file.is_file() and files.suffix(file) in files.SUFFIXES and file.name not in _ABOUT
    )


def _split_of(file: Path) -> str | None:
    shard = _SHARD.match(file.name)  # the names the hub gives: train_prefs-00000-of-00002.parquet
    if shard:
        return shard[1]
    named = _NAMED.match(file.name.lower())
    return (named[1] or "validation") if named else None
