"""A judge's question, from token ids to words, and what a judge answers: shared by all kinds of judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from xpo.api.groups import Completion, Group
from xpo.data.rows import Content
from xpo.errors import SettingError


@dataclass(frozen=True)
class JudgeOptions:
    """How judges are asked.

    Attributes:
        url: address of an OpenAI-compatible server.
        timeout: seconds that one question to it may take.
        retries: further attempts at a question that failed.
        concurrency: questions under way at a time.
        template: file with the question; the built-in one if None.
        samples: judgements of every answer, for rubrics.
        seed: of sampled judgements.
    """

    url: str | None = None
    timeout: float = 60.0
    retries: int = 3
    concurrency: int = 8
    template: str | None = None
    samples: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least in (("retries", self.retries, 0), ("concurrency", self.concurrency, 1)):
            if value < least:
                raise SettingError(f"--judge_{name} is {value}; it must be at least {least}")
        if not self.timeout > 0:
            raise SettingError(f"--judge_timeout is {self.timeout}; it must be a positive number of seconds")


@dataclass(frozen=True)
class Question:
    """Which of two completions of a prompt is better?"""

    group: Group
    first: Completion
    second: Completion


@dataclass(frozen=True)
class Wording:
    """A question in words, text or messages where the prompt is a conversation, and the question itself."""

    prompt: Content
    first: Content
    second: Content
    question: Question

    @property
    def source(self) -> Mapping[str, Any]:
        """The data row, for judges that want more than the words."""
        return self.question.group.source

    def turned(self) -> Wording:
        """The same question with the two in each other's place."""
        asked = self.question
        return Wording(self.prompt, self.second, self.first, Question(asked.group, asked.second, asked.first))


@dataclass(frozen=True)
class Answers:
    """What a judge says to some questions.

    Attributes:
        values: for each the probability that the first is preferred, or why there is no verdict.
        read, written: tokens it cost; 0 where nobody knows.
    """

    values: Sequence[float | str]
    read: int = 0
    written: int = 0


class Asker:
    """One kind of judge: answers questions in words. Asked in both orders if ``both_orders``, else as they come."""

    both_orders = False

    def __call__(self, questions: Sequence[Wording]) -> Answers:
        raise NotImplementedError

    def bind(self, model: torch.nn.Module | None, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take up the policy, without distributed wrapper: a judge may be it, and models of its own go beside it."""


@dataclass(frozen=True)
class Reply:
    """What a language model wrote.

    Attributes:
        text: the words.
        tops: log-probabilities of the likeliest first tokens, where they are known.
        read, written: tokens it cost.
    """

    text: str
    tops: Mapping[str, float] = field(default_factory=dict)
    read: int = 0
    written: int = 0


class Writer:
    """A language model that can be asked for some words."""

    def write(self, texts: Sequence[str], samples: int, tokens: int, temperature: float) -> list[Reply | str]:
        """``samples`` replies of at most so many ``tokens`` to each text, side by side, or why there is none."""
        raise NotImplementedError

    def bind(self, model: torch.nn.Module | None, tokenizer: PreTrainedTokenizerBase) -> None:
        """As for :class:`Asker`."""


def worded(questions: Sequence[Question], tokenizer: PreTrainedTokenizerBase) -> list[Wording]:
    """Questions in words, as reward functions get them: decoded by the policy's ``tokenizer``."""

    def said(completion: Completion, prompt: Content) -> Content:
        text = str(tokenizer.decode(completion.ids, skip_special_tokens=True))
        return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]

    words = []
    for question in questions:
        prompt = question.group.source.get("prompt")
        if prompt is None:
            prompt = str(tokenizer.decode(question.group.prompt_ids, skip_special_tokens=True))
        first, second = said(question.first, prompt), said(question.second, prompt)
        words.append(Wording(prompt, first, second, question))
    return words


def plain(content: Content) -> str:
    """Words as one text: what was said in a single message, or all messages with who said them."""
    if isinstance(content, str):
        return content
    if len(content) == 1:
        return str(content[0].get("content") or "")
    return "\n\n".join(f"{str(one['role']).capitalize()}: {one.get('content') or ''}" for one in content)
