"""``Row``: one row of data in the one form the rest of the data path knows, before it becomes token ids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Text, or the messages of a conversation as ``{"role": ..., "content": ...}``.
Content = str | list[dict[str, Any]]


@dataclass(slots=True)
class Answer:
    """One completion of a row, as text or messages.

    Attributes:
        content: what was said; for conversations the messages after the prompt.
        role: ``chosen``, ``rejected``, ``completion``, ``forget`` or ``retain``.
        label: desirable or not, for labelled data.
        score: how good it is, for lists; for pairs where the data says so.
    """

    content: Content
    role: str = "completion"
    label: bool | None = None
    score: float | None = None


@dataclass(slots=True)
class Row:
    """One prompt, its completions and what is known about them.

    Attributes:
        prompt: text, or messages.
        answers: the completions, in the order of the data.
        pairs: preferences among them, as (index of the preferred, index of the other).
        index: number of the data row, from 0.
        place: where the row stands, for messages.
        columns: numbers known about the whole row.
        template: what the row passes on to the chat template: its ``tools`` and ``chat_template_kwargs``.
        source: the row as it was read.
    """

    prompt: Content
    answers: list[Answer] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    index: int = -1
    place: str = ""
    columns: dict[str, float] = field(default_factory=dict)
    template: dict[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def conversational(self) -> bool:
        """Whether the row holds messages rather than text."""
        return not isinstance(self.prompt, str)

    def prompt_key(self) -> str:
        """The same for rows with the same prompt."""
        return json.dumps([self.prompt, self.template], sort_keys=True, default=str)

    def key(self) -> str:
        """The same for rows that say the same thing."""
        answers = [[answer.content, answer.role, answer.label, answer.score] for answer in self.answers]
        return json.dumps([self.prompt, self.template, answers], sort_keys=True, default=str)
