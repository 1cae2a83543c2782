"""Whether the default of a setting is what is said about it: by its type, and by its documentation."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

from xpo.testing.alternatives import kinds

#: A number that the documentation calls the default.
_TOLD = re.compile(r"\bdefault(?:s to| is|:|=)?[\s('\"]*([-+]?\d[\d_]*\.?\d*(?:e[-+]?\d+)?)\b", re.IGNORECASE)


def wrong_default(config: type[Any], name: str) -> str | None:
    """Why the default of the setting ``name`` cannot be meant, or None."""
    default = getattr(config(), name)
    members = kinds(config, name)
    if not any(_is(default, member) for member in members):
        wanted = " or ".join(getattr(member, "__name__", str(member)) for member in members)
        return f"the default of the setting '{name}' is {default!r}, which is no {wanted}; correct one of the two"
    told = next(item.metadata.get("help", "") for item in fields(config) if item.name == name)
    if isinstance(default, bool) or not isinstance(default, (int, float)) or not (said := _TOLD.search(told)):
        return None
    if float(said[1]) != default:
        return f"the default of the setting '{name}' is {default}, and its documentation says {said[1]}; correct one"
    return None


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is one of a type, as far as can be told."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    kind = get_origin(kind) or kind
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(kind, type) or isinstance(value, kind)
