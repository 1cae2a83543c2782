"""Answers to prompts: sampled from a model, or read from a file that somebody published."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from xpo.api.groups import Completion
from xpo.assess.language import context, digest_of, load, named
from xpo.assess.reading import read_rows
from xpo.assess.settings import EvalSettings
from xpo.data.convert import convert
from xpo.data.counts import Counts
from xpo.data.formats import canonical, detect
from xpo.data.rows import Answer, Content, Row
from xpo.data.sources import Rows, read
from xpo.data.tokenize import tokenize
from xpo.errors import DataError
from xpo.feedback.said import Said, given_groups, words_of
from xpo.feedback.sampling import Sampling, sample
from xpo.models.load import load_tokenizer
from xpo.plugins import Registry
from xpo.train.bar import Bar

#: Prompts that are sampled for at once.
TOGETHER = 64
#: Part of the seed of samples: the same for every model.
STREAM = "eval"


@dataclass(frozen=True)
class Side:
    """One of two that are compared.

    Attributes:
        name: for people.
        answers: prompt -> its answer, whose ids hold its words (:class:`Said`).
        sampled: whether they were sampled here; then ``Completion.finished`` is known.
        tokenizer: what the ids of sampled answers are of.
        lines: what a reader should know.
        model: fingerprint; None where nothing can tell.
    """

    name: str
    answers: Mapping[int, Completion]
    sampled: bool
    tokenizer: PreTrainedTokenizerBase | None = None
    lines: list[str] = field(default_factory=list)
    model: str | None = None


def prompts_of(settings: EvalSettings, registry: Registry, files: Sequence[str]) -> tuple[Rows, list[Row], list[str]]:
    """The rows, their prompts, each once, and lines about them: of the data, else of the first file of answers.

    Raises:
        DataError: there are none.
    """
    from_file = settings.run.dataset_name is None and files
    rows = read(files[0]) if from_file else read_rows(settings, registry, "rollouts", "pairs")
    found, counts = _prompts(rows), Counts()
    found, _ = convert(found, "pairs", "rollouts", counts)
    if settings.own.chat:
        found = [replace(row, prompt=_message("user", row.prompt)) for row in found]
    kept = found[: settings.own.eval_prompts]
    lines = [f"{counts.merged} rows merged: an earlier row has the same prompt"] if counts.merged else []
    if len(kept) < len(found):
        lines.append(f"the first {len(kept)} of {len(found)} prompts are answered: --eval_prompts")
    return rows, kept, lines


def sampled(name: str, label: str, prompts: Sequence[Row], settings: EvalSettings, device: torch.device) -> Side:
    """Sample an answer to each prompt that leaves room for one, with the same random numbers for every model.

    Raises:
        ModelError: the model cannot be loaded.
        DataError: no prompt leaves room for an answer.
    """
    own, rollout, config = settings.own, settings.rollout, named(name, settings.model)
    tokenizer = load_tokenizer(config, settings.run.chat_template_path)
    model = load(config, device)
    sampling = Sampling(1, own.eval_tokens, rollout.temperature, own.seed, top_k=rollout.top_k, top_p=rollout.top_p)
    groups, _ = tokenize(prompts, tokenizer, max_length=None, max_prompt_length=settings.run.max_prompt_length)
    longest = context(model)
    fitting = [
        (row, group)
        for row, group in zip(prompts, groups, strict=True)
        if longest is None or len(group.prompt_ids) + own.eval_tokens <= longest
    ]
    if not fitting:
        raise DataError(f"no prompt leaves room for {own.eval_tokens} tokens within the {longest} of '{name}'")
    answers: dict[int, Completion] = {}
    with Bar(f"sampling {label}", len(fitting)) as bar:
        for start in range(0, len(fitting), TOGETHER):
            some = fitting[start : start + TOGETHER]
            found = sample(model, tokenizer, [group for _, group in some], sampling, stream=STREAM)
            for (row, group), [one] in zip(some, found, strict=True):
                answers[row.index] = replace(one, ids=Said(one.ids, words_of(one, group, row, tokenizer)))
            bar.step(len(some))
    digest = digest_of(model)
    del model
    gc.collect()
    lines = []
    if len(fitting) < len(prompts):
        lines.append(f"{label}: {len(prompts) - len(fitting)} prompts leave no room for an answer and are left out")
    return Side(label, answers, True, tokenizer, lines, digest)


def published(path: str, label: str, prompts: Sequence[Row]) -> Side:
    """The answers of a file to the prompts that it answers.

    Raises:
        DataError: a row has no prompt or no completion, or no prompt is one of those asked.
    """
    rows = read(path)
    rows = Rows([_alike(row) for row in rows.rows], rows.origin, rows.parts, rows.numbers)
    counts = Counts()
    kind = detect(rows.columns, want="demonstrations", origin=rows.origin)
    if kind != "demonstrations":
        raise DataError(f"{rows.origin} holds no answers: its rows need the columns prompt and completion")
    found: dict[str, Content] = {}
    for row in canonical(rows, kind, counts):
        found.setdefault(_key(row.prompt), row.answers[0].content)
    answers = {}
    for row in prompts:
        content = found.get(_key(row.prompt))
        if content is not None:
            answers[row.index] = Completion(Said([], _like(content, row.prompt)))
    if not answers:
        raise DataError(
            f"{rows.origin} answers none of the {len(prompts)} prompts: they must be the same to the letter, as text "
            "or as messages"
        )
    lines = []
    if len(rows) > len(found):
        lines.append(f"{label}: {len(rows) - len(found)} rows repeat a prompt; its first answer counts")
    if len(answers) < len(prompts):
        lines.append(
            f"{label} has no answer to {len(prompts) - len(answers)} of {len(prompts)} prompts; they are left out"
        )
    return Side(label, answers, False, None, lines)


def unit_of(one: Side, other: Side) -> tuple[PreTrainedTokenizerBase | None, str]:
    """What lengths of two sides are counted in: tokens where those that were sampled have the same, else words."""
    known = [side.tokenizer for side in (one, other) if side.tokenizer is not None]
    if not known or any(found.get_vocab() != known[0].get_vocab() for found in known):
        return None, "words"
    return known[0], "tokens"


def length_of(side: Side, row: Row, tokenizer: PreTrainedTokenizerBase | None) -> int:
    """Length of an answer in tokens, its end included; in words without a tokenizer."""
    answer = side.answers[row.index]
    assert isinstance(answer.ids, Said)
    if side.sampled and tokenizer is not None:
        return len(answer.ids)
    [group] = given_groups([replace(row, answers=[Answer(answer.ids.content)], pairs=[])], tokenizer)
    return len(group.completions[0].ids)


def _prompts(rows: Rows) -> list[Row]:
    """Every row that begins with a prompt, whatever follows."""
    counts = Counts()
    try:
        kind = detect(rows.columns, want="rollouts", origin=rows.origin)
    except DataError:
        kind = detect(rows.columns, want="demonstrations", origin=rows.origin)
    return canonical(rows, kind, counts)


def _message(role: str, content: Content) -> Content:
    return [{"role": role, "content": content}] if isinstance(content, str) else content


def _key(prompt: Content) -> str:
    """The same for a text and for a conversation of that text alone."""
    if not isinstance(prompt, str) and len(prompt) == 1 and prompt[0]["role"] == "user":
        prompt = prompt[0]["content"]
    return json.dumps(prompt, sort_keys=True)


def _alike(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row whose prompt is messages and whose completion is text, as many are published, with both as messages."""
    if isinstance(row.get("prompt"), list) and isinstance(row.get("completion"), str):
        return {**row, "completion": _message("assistant", row["completion"])}
    return row


def _like(content: Content, prompt: Content) -> Content:
    """A completion in the form of its prompt."""
    if isinstance(prompt, str) and not isinstance(content, str):
        return "\n\n".join(str(one.get("content") or "") for one in content)
    return _message("assistant", content) if not isinstance(prompt, str) else content
