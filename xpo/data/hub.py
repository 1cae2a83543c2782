"""Data sets on the hub, read through ``datasets``, with failures put in words."""

from __future__ import annotations

import datasets

from xpo.data import files
from xpo.data.quiet import quiet_datasets
from xpo.errors import DataError, did_you_mean


def load(name: str, config: str | None, split: str, *, near: str = "") -> datasets.Dataset:
    """One split of a hub data set. ``near`` is a did-you-mean about local files, in case that was meant."""
    try:
        with quiet_datasets():
            data = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub, the network and the builders each raise their own
        raise _failure(name, config, split, near, error) from error
    return data


def splits(name: str, config: str | None, *, near: str = "") -> list[str]:
    """The splits of a hub data set."""
    try:
        with quiet_datasets():
            return [str(split) for split in datasets.get_dataset_split_names(name, config)]
    except Exception as error:  # as above
        raise _failure(name, config, None, near, error) from error


def _failure(name: str, config: str | None, split: str | None, near: str, error: Exception) -> DataError:
    text = str(error)
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    if isinstance(error, ValueError) and split is not None and "split" in text.lower():
        try:
            known = splits(name, config)
        except DataError:
            return DataError(f"{name} has no split '{split}': {first}")
        return DataError(f"{name} has no split '{split}'; it has {', '.join(known)}.{did_you_mean(split, known)}")
    if isinstance(error, ValueError) and "config" in text.lower():
        return DataError(f"{name}: choose a configuration with --dataset_config: {' '.join(text.split())[:300]}")
    return DataError(
        f"'{name}' is no local file or folder, and no data set of that name could be loaded from the hub ({first})."
        f"{near} Without a network, give a local file ({', '.join(files.SUFFIXES)}), a folder of such files, or a "
        f"folder saved by datasets.save_to_disk()."
    )
