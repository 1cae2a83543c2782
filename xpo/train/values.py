"""Turn what was written into what a setting's type asks for: typed words, YAML values and Python objects alike."""

from __future__ import annotations

import json
import math
import os
import types
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from xpo.train.sources import Words

_TRUE = ("true", "yes", "on", "y", "t", "1")
_FALSE = ("false", "no", "off", "n", "f", "0")
_NONE = ("none", "null")


def convert(value: Any, hint: Any) -> Any:
    """Return ``value`` as the type ``hint``.

    Raises:
        ValueError: it cannot be; the message completes a sentence that begins with the name of the setting.
    """
    kinds = members(hint)
    if isinstance(value, Words):
        if not value:
            if bool in kinds:
                return True
            raise ValueError(f"needs a value: {describe(hint)}")
        value = value[0] if len(value) == 1 else list(value)
    if isinstance(value, str) and value.startswith("{") and dict in (get_origin(kind) or kind for kind in kinds):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"is not valid JSON: {error}; quote it for the shell, as '{{\"name\": 1}}'") from None
    if value is None:
        if type(None) in kinds or Any in kinds:
            return None
        raise ValueError(f"takes {describe(hint)}, not null")
    for kind in _in_order(kinds, value):
        try:
            return _as(value, kind, exact=float in kinds)
        except (TypeError, ValueError, OverflowError):
            continue
    # Only now: where text is welcome, 'none' is a text like any other (report_to none).
    if isinstance(value, str) and value.lower() in _NONE and type(None) in kinds:
        return None
    shown = " ".join(map(str, value)) if isinstance(value, list) else value
    raise ValueError(f"takes {describe(hint)}, not {shown!r}")


def plain(value: Any) -> Any:
    """``value`` as a Python value when nobody declared its type: typed words are read as YAML reads them."""
    if isinstance(value, Words):
        if not value:
            return True
        read = [None if word.lower() in _NONE else _yaml(word) for word in value]
        value = read[0] if len(read) == 1 else read
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def same(value: Any, other: Any) -> bool:
    """Equality that keeps True and 1 apart."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def members(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union; the type itself when it is none."""
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for part in get_args(hint) for member in members(part))
    return (hint,)


def describe(hint: Any) -> str:
    """What a type takes, in words."""
    kinds = [kind for kind in members(hint) if kind is not type(None)]
    if any(isinstance(kind, type) and issubclass(kind, Enum) for kind in kinds):
        kinds = [kind for kind in kinds if kind is not str]
    return " or ".join(dict.fromkeys(_words(kind) for kind in kinds))


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(str(item.value) for item in kind)
    if get_origin(kind) is tuple and Ellipsis not in get_args(kind):
        return " and ".join(_words(item) for item in get_args(kind))
    if get_origin(kind) in (list, tuple):
        return f"one or more values, each {_words(get_args(kind)[0])}"
    if (get_origin(kind) or kind) is dict:
        return "a JSON object"
    names: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names.get(kind) or str(getattr(kind, "__name__", kind))


def _in_order(kinds: tuple[Any, ...], value: Any) -> list[Any]:
    """The alternatives, narrow before wide, so that text is not taken where a number would do."""

    def width(kind: Any) -> int:
        origin = get_origin(kind) or kind
        if origin in (list, tuple):
            # One word for a setting that takes a word or several stays a word.
            return 8 if isinstance(value, str) and str in kinds and not value.startswith("[") else 5
        return {bool: 0, int: 1, float: 2, dict: 6, str: 7, Any: 9}.get(origin, 3)

    closed = any(isinstance(kind, type) and issubclass(kind, Enum) for kind in kinds)
    return sorted((kind for kind in kinds if kind is not type(None) and not (closed and kind is str)), key=width)


def _as(value: Any, kind: Any, *, exact: bool) -> Any:
    origin = get_origin(kind) or kind
    if origin is Any:
        return value
    if origin is Literal:
        found = [item for item in get_args(kind) if same(item, value) or str(item) == value]
        return found[0] if found else _refuse()
    if isinstance(origin, type) and issubclass(origin, Enum):
        return _choice(value, [item.value for item in origin])
    if origin in (list, tuple):
        return _several(value, kind)
    if origin is dict:
        return value if isinstance(value, dict) else _refuse()
    if origin is bool:
        return _truth(value)
    if origin in (int, float):
        return _number(value, origin, exact=exact)
    if origin is str:
        return os.fspath(value) if isinstance(value, (str, os.PathLike)) else _refuse()
    return value if isinstance(value, origin) else _refuse()


def _choice(value: Any, choices: list[Any]) -> Any:
    value = value.value if isinstance(value, Enum) else value
    if value is False and "no" in choices:  # what YAML makes of a bare no
        return "no"
    return value if value in choices else _refuse()


def _several(value: Any, kind: Any) -> Any:
    if isinstance(value, str):
        value = json.loads(value) if value.startswith("[") else [value]
    elif not isinstance(value, (list, tuple)):
        value = [value]
    hints = get_args(kind) or (Any,)
    if get_origin(kind) is tuple and Ellipsis not in hints:
        if len(hints) != len(value):
            _refuse()
        return tuple(convert(item, hint) for item, hint in zip(value, hints, strict=True))
    return (get_origin(kind) or kind)(convert(item, hints[0]) for item in value)


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
        return value.lower() in _TRUE
    return bool(_refuse())


def _number(value: Any, kind: type, *, exact: bool) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        _refuse()
    if kind is float:
        number = float(value)
        return _refuse() if math.isnan(number) else number
    if isinstance(value, int) or (isinstance(value, str) and value.lstrip("+-").isdigit()):
        return int(value)
    # 1e3 and 8.0 are whole numbers, except where a share between 0 and 1 is meant as well.
    return int(float(value)) if not exact and float(value).is_integer() else _refuse()


def _yaml(word: str) -> Any:
    try:
        return yaml.safe_load(word)
    except yaml.YAMLError:
        return word


def _refuse() -> Any:
    raise ValueError
