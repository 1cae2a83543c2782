"""Grids: which values of which settings are tried with which method."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from xpo.errors import SettingError, did_you_mean
from xpo.train.vocabulary import Vocabulary


def _has(words: Vocabulary, name: str) -> bool:
    slot = words.slots.get(words.resolve(name))
    return slot is not None and (slot.section != "rollout" or words.samples)


def grid_of(method: str, grid: Mapping[str, list[Any]], words: Vocabulary) -> Iterator[tuple[str, list[Any]]]:
    """The grids that are for a method, by the plain name of the setting; its own win over those for all."""
    mine = {name.removeprefix(f"{method}."): values for name, values in grid.items() if name.startswith(f"{method}.")}
    yield from {**{key: one for key, one in grid.items() if _has(words, key)}, **mine}.items()


def check_grids(grid: Mapping[str, list[Any]], words: Mapping[str, Vocabulary], known: Collection[str]) -> None:
    """Refuse a grid that no method has the setting of.

    Args:
        known: methods that are named somewhere; grids of those that were not chosen are left out.
    """
    for name in grid:
        method, dot, setting = name.partition(".")
        if dot and method in words:
            if not _has(words[method], setting):
                own = ", ".join(words[method].algorithm.settings()) or "no settings of its own"
                raise SettingError(f"--grid {name}: {method} has no setting '{setting}'; it has {own}")
        elif method not in known and not any(_has(some, name) for some in words.values()):
            there = {key for some in words.values() for key in some.slots}
            raise SettingError(f"--grid {name}: none of {', '.join(words)} has it.{did_you_mean(name, sorted(there))}")
