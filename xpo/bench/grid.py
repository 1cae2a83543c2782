"""Grids: which values of which settings are tried with which method."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from xpo.bench.reading import owned
from xpo.errors import SettingError, did_you_mean
from xpo.train.vocabulary import Vocabulary


def _has(words: Vocabulary, name: str) -> bool:
    slot = words.slots.get(words.resolve(name))
    return slot is not None and (slot.section != "rollout" or words.samples)


def grid_of(method: str, grid: Mapping[str, list[Any]], words: Mapping[str, Vocabulary]) -> dict[str, list[Any]]:
    """The grids that are for a method, by the plain name of the setting; its own win over those for all.

    Args:
        words: the methods of the suite -> the settings they have.
    """
    split = {name: owned(name, words) for name in grid}
    common = {name: grid[name] for name, (owner, _) in split.items() if owner is None and _has(words[method], name)}
    return common | {setting: grid[name] for name, (owner, setting) in split.items() if owner == method}


def check_grids(grid: Mapping[str, list[Any]], words: Mapping[str, Vocabulary], known: Collection[str]) -> None:
    """Refuse a grid that no method has the setting of, by the message that helps most.

    Args:
        known: methods that are named somewhere; grids of those that were not chosen are left out.
    """
    for name in grid:
        method, setting = owned(name, words)
        if method is not None:
            if not _has(words[method], setting):
                own = ", ".join(words[method].algorithm.settings()) or "no settings of its own"
                raise SettingError(f"--grid {name}: {method} has no setting '{setting}'; it has {own}")
        elif owned(name, known)[0] is None and not any(_has(some, name) for some in words.values()):
            raise SettingError(f"--grid {name}: {_nobodys(name, words)}")


def _nobodys(name: str, words: Mapping[str, Vocabulary]) -> str:
    """Why a grid is for none of the methods."""
    if any(some.resolve(name) in some.slots for some in words.values()):
        return f"it is for methods that sample while training, and none of {', '.join(words)} does"
    plain = {key for some in words.values() for key in some.slots if _has(some, key)}
    own = [f"{method}.{key}" for method in words for key in sorted(plain)]
    hint = did_you_mean(name, own if "." in name else sorted(plain))
    return f"none of {', '.join(words)} has it.{hint}"
