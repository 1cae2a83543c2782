"""Check one cell of a row: text or messages, a label, a number. Every refusal names place, column and fix."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from xpo.data.rows import Content
from xpo.errors import DataError

#: Speakers of the from/value form that chat templates know by another name.
_SPEAKERS = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
#: What a label may be. True and 1 and 1.0 are one key, and CSV holds all of them as text.
_LABELS = {True: True, False: False, "true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def refuse(place: str, column: str, found: str, fix: str) -> DataError:
    """The error every check raises, in one form."""
    return DataError(f"{place}: column '{column}' {found}; {fix}")


def names(columns: Collection[str], last: str = ", ") -> str:
    """Columns as messages name them; ``last`` joins the last two."""
    quoted = [f"'{name}'" for name in columns]
    return ", ".join([*quoted[:-2], last.join(quoted[-2:])])


def shown(value: Any) -> str:
    """A value as messages show it: its kind, and the value where that is short and tells more."""
    if value is None:
        return "null"
    if isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, str):
        return f"the string {value!r}" if len(value) <= 20 else "a string"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"


def content(value: Any, column: str, place: str, *, empty: bool = False) -> Content:
    """Text or messages; ``empty`` allows text of no characters, as a prompt may be."""
    if isinstance(value, str):
        if not value and not empty:
            raise refuse(place, column, "is empty", "fill it or remove the row")
        return _encodable(value, column, place)
    if not isinstance(value, list):
        raise refuse(
            place, column, f"holds {shown(value)}", "it must be text, or a list of messages with role and content"
        )
    if not value:
        raise refuse(place, column, "is an empty list of messages", "fill it or remove the row")
    return [_message(message, f"{column}[{number}]", place) for number, message in enumerate(value)]


def _message(message: Any, column: str, place: str) -> dict[str, Any]:
    if isinstance(message, Mapping) and "from" in message and "value" in message:
        speaker = message["from"]
        message = {"role": _SPEAKERS.get(speaker, speaker), "content": message["value"]}
    if (
        not isinstance(message, Mapping)
        or "role" not in message
        or not ("content" in message or "tool_calls" in message)
    ):
        raise refuse(
            place,
            column,
            f"is {shown(message)} without role and content",
            'messages look like {"role": "user", "content": "..."} or {"from": "human", "value": "..."}',
        )
    if not isinstance(message["role"], str):
        raise refuse(place, column, f"has the role {shown(message['role'])}", "a role is a name such as 'user'")
    text = message.get("content")
    if not isinstance(text, str) and not (text is None and message.get("tool_calls")):
        raise refuse(
            place, column, f"has {shown(text)} as content", "only text can be trained on: content must be a string"
        )
    if isinstance(text, str):
        _encodable(text, f"{column}.content", place)
    # Arrow gives every message every key that any has: a null is a key that is not there.
    return {key: value for key, value in message.items() if value is not None}


def _encodable(text: str, column: str, place: str) -> str:
    # JSON can escape half of a surrogate pair ("\\ud83d"), which is no character and which no tokenizer takes.
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise refuse(place, column, "holds half of a surrogate pair", "write the character itself or remove it")
    return text


def answer(value: Any, prompt: Content, column: str, place: str) -> Content:
    """A completion that fits its prompt: text for text, messages for messages, without the prompt's own messages."""
    found = content(value, column, place)
    if isinstance(found, str) != isinstance(prompt, str):
        names = {True: "text", False: "messages"}
        raise refuse(
            place,
            column,
            f"is {names[isinstance(found, str)]}, but the prompt is {names[isinstance(prompt, str)]}",
            "a row must be all text or all messages",
        )
    if isinstance(found, str) or isinstance(prompt, str):
        return found
    if found[: len(prompt)] == prompt and found[0]["role"] != "assistant":
        # Many published data sets repeat the prompt in front of each completion.
        found = found[len(prompt) :]
    if not found or found[0]["role"] not in ("assistant", "tool") or found[-1]["role"] != "assistant":
        roles = ", ".join(message["role"] for message in found) or "nothing"
        raise refuse(
            place, column, f"holds messages of {roles} after the prompt", "a completion is what the assistant says"
        )
    if not found[-1].get("content") and not found[-1].get("tool_calls"):
        raise refuse(place, column, "ends with a message without content", "fill it or remove the row")
    return found


def label(value: Any, column: str, place: str) -> bool:
    """True or False, also as the numbers 1 and 0, and as text that says either."""
    found = value.strip().lower() if isinstance(value, str) else value
    if isinstance(found, (str, int, float)) and found in _LABELS:
        return _LABELS[found]
    raise refuse(place, column, f"holds {shown(value)}", "a label is true or false (or 1 or 0)")


def number(value: Any, column: str, place: str) -> float:
    """A finite number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise refuse(place, column, f"holds {shown(value)}", "it must be a finite number")


def listed(value: Any, column: str, place: str) -> list[Any]:
    """A list that is not empty."""
    if isinstance(value, list) and value:
        return value
    raise refuse(place, column, "is an empty list" if value == [] else f"holds {shown(value)}", "it must be a list")


def template(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """What the row passes to the chat template: ``tools`` (a list, or JSON of one) and ``chat_template_kwargs``."""
    tools, options = row.get("tools"), row.get("chat_template_kwargs")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except json.JSONDecodeError as error:
            raise refuse(
                place, "tools", f"is not valid JSON ({error.msg})", "give a list of tools, or JSON of one"
            ) from error
    if tools is not None and not isinstance(tools, list):
        raise refuse(place, "tools", f"holds {shown(tools)}", "give a list of tools, or JSON of one")
    if options is not None and not isinstance(options, Mapping):
        raise refuse(place, "chat_template_kwargs", f"holds {shown(options)}", "give an object of template variables")
    # Some templates print the frame of a tool section for an empty list, so that becomes no tools at all.
    return {**({"tools": tools} if tools else {}), **(options or {})}
