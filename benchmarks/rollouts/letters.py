"""The reward of all sides: it costs nothing, and differs between samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def letters(*, completions: Sequence[Any], **_: Any) -> list[float]:
    """Share of the letter e among the characters of a completion."""
    texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
    return [text.count("e") / max(len(text), 1) for text in texts]
