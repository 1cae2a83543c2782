"""Rules on settings that every command shares: what a number may be, what means nothing alone, and how that is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xpo.errors import SettingError
from xpo.train.sources import Given

#: What is said of a value that breaks it, and whether a value holds.
Rule = tuple[str, Callable[[Any], bool]]
#: Name -> who made the setting, of those that are not at their default.
By = Mapping[str, Given]

POSITIVE: Rule = ("must be positive", lambda value: value > 0)
NOT_NEGATIVE: Rule = ("must not be negative", lambda value: value >= 0)
SHARE: Rule = ("must be above 0 and at most 1", lambda value: 0 < value <= 1)


def named(name: str, by: By) -> str:
    """A setting as it was written, or as a flag where nobody wrote it."""
    return by[name].label if name in by else f"--{name}"


def check_rules(rules: Mapping[str, Rule], value: Callable[[str], Any], by: By) -> None:
    """Refuse a value that breaks the rule of its setting; None is no value.

    Args:
        rules: by setting.
        value: of a setting.

    Raises:
        SettingError: the first one.
    """
    for name, (rule, holds) in rules.items():
        found = value(name)
        if found is not None and not holds(found):
            raise SettingError(f"{named(name, by)} {rule}, not {found}")


def check_needed(needed: Mapping[str, str], value: Callable[[str], Any], by: By) -> None:
    """Refuse a setting that means nothing without another.

    Args:
        needed: setting -> the other.
        value: of a setting.

    Raises:
        SettingError: the first one.
    """
    for name, other in needed.items():
        if name in by and not value(other):
            raise SettingError(f"{by[name].label} has no effect without {by[name].spell(other)}; give both or neither")


def refuse(names: Iterable[str], by: By, why: str) -> None:
    """Refuse settings that have no effect beside others.

    Raises:
        SettingError: one of them was given.
    """
    for name in names:
        if name in by:
            raise SettingError(f"{by[name].label} has no effect here: {why}")
