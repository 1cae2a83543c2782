"""Other legal values of a setting, worked out from its type, its default, its documentation and what it refuses."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_FLOATS = (0.0, 0.1, 0.25, 0.5, 0.9, 1.0, 2.0, 10.0, -1.0, 100.0)
_INTEGERS = (0, 1, 2, 3, 5, 10)
_RANGES = ((-0.5, 0.5), (0.25, 0.75), (0.0, 0.1))


def alternatives(config: type[Any], name: str, base: Mapping[str, Any] | None = None) -> Iterator[Any]:
    """Legal values of the setting ``name`` other than the one it has, the most ordinary first.

    Args:
        config: the dataclass of the settings.
        base: settings that have other values than their defaults.
    """
    base = dict(base or {})
    current = getattr(config(**base), name)
    seen = [current]
    for value in _candidates(config, name, current):
        if not any(_same(value, other) for other in seen):
            seen.append(value)
            try:
                config(**{**base, name: value})
            except Exception:  # however it is said, this value is refused
                continue
            yield value


def kinds(config: type[Any], name: str) -> tuple[Any, ...]:
    """The types a setting may have."""
    try:
        return _members(get_type_hints(config)[name])
    except NameError:  # declared inside a function, where its annotations cannot be looked up
        return (type(getattr(config(), name)),)


def _candidates(config: type[Any], name: str, current: Any) -> Iterator[Any]:
    members = kinds(config, name)
    for member in members:
        kind = get_origin(member) or member
        if kind is Literal:
            yield from get_args(member)
        elif kind is bool:
            yield from (not current, current) if isinstance(current, bool) else (True, False)
        elif kind is int:
            yield from (current + 1, current - 1, 2 * current) if type(current) is int else ()
            yield from _INTEGERS
        elif kind is float:
            yield from (2.0 * current, 0.5 * current, current + 1.0) if isinstance(current, (int, float)) else ()
            yield from _FLOATS
        elif kind is str:
            yield from _words(config, name)
        elif isinstance(kind, type) and issubclass(kind, Enum):
            yield from kind
        elif kind in (tuple, list):
            if isinstance(current, (tuple, list)) and all(isinstance(one, (int, float)) for one in current):
                yield from (kind(factor * one for one in current) for factor in (2.0, 0.5))
            yield from map(kind, _RANGES)
    if type(None) in members:
        yield None


def _words(config: type[Any], name: str) -> Iterator[str]:
    """The choices of a text, which are named where another one is refused, or where it is documented."""
    nonsense = "?"
    told = next((item.metadata.get("help", "") for item in fields(config) if item.name == name), "")
    quoted = re.findall(r"'([^']+)'", told)
    try:
        config(**{name: nonsense})
    except Exception as error:
        told = f"{error} {told}"
        yield from quoted
        yield from dict.fromkeys(re.findall(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", told))
    else:
        yield from (*quoted, nonsense)


def _members(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for part in get_args(hint) for member in _members(part))
    return (hint,)


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
