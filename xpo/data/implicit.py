"""Pairs without a prompt: what chosen and rejected both begin with is taken for it, unless it plainly stands elsewhere.

This is TRL's implicit prompt. There both completions begin with the whole prompt; two completions without their prompt
begin with the same word by accident, and would be learned as if that word were what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trl import extract_prompt

from xpo.data import content
from xpo.data.counts import Counts
from xpo.data.rows import Content
from xpo.errors import DataError

#: Names under which data holds its prompts, or parts of them, when it does not call them ``prompt``.
NAMES = frozenset(
    {"context", "input", "inputs", "instruction", "instructions", "problem", "query", "question", "user_prompt"}
    | {"system", "system_prompt"}
)
#: What stands beside a prompt rather than in place of it.
_SYSTEM = ("system", "system_prompt")
#: Shared beginnings of fewer words and characters than these are no prompts that anybody would write.
_WORDS, _CHARACTERS = 3, 20


def applies(row: Mapping[str, Any]) -> bool:
    """Whether the prompt of a pair stands in its completions.

    Some published data has the prompt as text and, once more, as the first message of both conversations.
    """
    if "prompt" not in row:
        return True
    cells = row.get("chosen"), row.get("rejected")
    first = [cell[0] for cell in cells if isinstance(cell, list) and cell and isinstance(cell[0], Mapping)]
    return (
        isinstance(row["prompt"], str)
        and len(first) == 2
        and all(message.get("role", message.get("from")) in ("user", "human", "system") for message in first)
    )


def taken(
    row: Mapping[str, Any], chosen: Content, rejected: Content, place: str, counts: Counts
) -> tuple[Content, Content, Content]:
    """Prompt, chosen and rejected, where the prompt is what both begin with; the two differ.

    Args:
        row: as it was read, for the columns that may hold the prompt.
        chosen, rejected: checked.
        counts: counts ``implied``, ``short`` and ``within`` there.

    Raises:
        DataError: they do not begin alike, or what they begin with is not the prompt, which stands in another column.
    """
    if type(chosen) is not type(rejected):
        raise DataError(f"{place}: chosen and rejected are not both text or both messages; a row must be all one form")
    # A space before the divergence goes to the completions, as tokens begin with their space.
    split = extract_prompt({"chosen": chosen, "rejected": rejected}) if chosen[0] == rejected[0] else None
    prompt: Content = "" if split is None else split["prompt"]
    others = _others(row, prompt) if isinstance(prompt, str) else []
    if others:
        raise DataError(f"{place}: there is no column 'prompt', and {_elsewhere(others)}")
    if split is None:
        raise DataError(
            f"{place}: there is no column 'prompt', and chosen and rejected do not begin with the same "
            f"{'text' if isinstance(chosen, str) else 'message'} to take for it; add a column 'prompt'"
        )
    if isinstance(prompt, str):
        counts.implied += 1
        counts.short += len(prompt.split()) < _WORDS and len(prompt) < _CHARACTERS
        counts.within += all(map(_letter, (prompt[-1:], split["chosen"][:1], split["rejected"][:1])))
    return prompt, split["chosen"], split["rejected"]


def unread(row: Mapping[str, Any], prompt: Content) -> bool:
    """Whether the row has a system prompt in a column of its own, which is not in the prompt."""
    return any(name in _SYSTEM for name in _others(row, prompt))


def rename(columns: list[str]) -> str:
    """A sentence on columns that may hold what should be called ``prompt``; empty where there are none."""
    found = [name for name in columns if name.lower() in NAMES]
    if not found or "prompt" in columns:
        return ""
    return f" If the prompt is in {content.names(found, ' and ')}, write it into a column 'prompt'."


def _others(row: Mapping[str, Any], prompt: Content) -> list[str]:
    """Columns that are named as prompts are, and hold text which is not in the prompt."""
    texts = [prompt] if isinstance(prompt, str) else [str(message.get("content") or "") for message in prompt]
    texts = [_even(text) for text in texts]
    return [
        name
        for name, value in row.items()
        if name.lower() in NAMES
        and isinstance(value, str | list)
        and value
        and not (isinstance(value, str) and any(_even(value) in text for text in texts))
    ]


def _elsewhere(columns: list[str]) -> str:
    held = f"what chosen and rejected both begin with does not hold {content.names(columns, ' and ')}"
    if len(columns) == 1:
        return f"{held}; if that is the prompt, rename it to 'prompt', and if not, remove it"
    return (
        f"{held}; if they make up the prompt, write them into one column 'prompt', as text or as messages (then chosen "
        f"and rejected too), and if not, remove them"
    )


def _even(text: str) -> str:
    """Text without what is only its layout."""
    return " ".join(text.split())


def _letter(character: str) -> bool:
    # Only scripts with words of several letters have upper and lower case, or write numbers in digits.
    return character.islower() or character.isupper() or character.isdigit()
