"""``Row`` -> ``Group``: prompt and completion are tokenised together, and the completion starts where they diverge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from xpo.api.groups import Completion, Group
from xpo.data.counts import Counts
from xpo.data.encode import Encoder, Ids
from xpo.data.rows import Content, Row
from xpo.errors import SettingError

#: Rows whose texts go to the tokenizer in one call: it works on them in parallel, and memory stays bounded.
_CHUNK = 512


def tokenize(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None,
    max_prompt_length: int | None = None,
    counts: Counts | None = None,
) -> tuple[list[Group], Counts]:
    """The groups of ``rows``, in order, without those that cannot fit.

    Args:
        rows: rows in one form; those without completions become groups of a prompt alone.
        tokenizer: the policy's.
        max_length: most tokens of prompt and completion together; None for no limit.
        max_prompt_length: most tokens of the prompt; None for no limit of its own.
        counts: goes on counting there; a new one otherwise.
    """
    counts = Counts(rows=len(rows)) if counts is None else counts
    for name, limit in (("max_length", max_length), ("max_prompt_length", max_prompt_length)):
        if limit is not None and limit < 1:
            raise SettingError(f"--{name} is {limit}; it must be at least 1, or unset for no limit")
    counts.max_length, counts.max_prompt_length = max_length, max_prompt_length
    counts.examples += len(rows)
    fit = _Fit(Encoder(tokenizer), max_length, max_prompt_length, counts)
    groups = []
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        for row, encoded in zip(chunk, _encode(fit.encoder, chunk), strict=True):
            group = fit(row, encoded)
            if group is not None:
                groups.append(group)
    counts.groups += len(groups)
    return groups, counts


def _encode(encoder: Encoder, rows: Sequence[Row]) -> Iterator[list[Ids]]:
    """Token ids of the texts of each row, tokenised in one call for text and one for conversations."""
    texts = [encoder.texts(row) for row in rows]
    streams = {
        rendered: iter(
            encoder.ids(
                [text for row, own in zip(rows, texts, strict=True) if row.conversational is rendered for text in own],
                rendered=rendered,
            )
        )
        for rendered in (False, True)
    }
    for row, own in zip(rows, texts, strict=True):
        yield [next(streams[row.conversational]) for _ in own]


class _Fit:
    """Makes groups that keep the length limits. Only the prompt's beginning ever gives way."""

    def __init__(self, encoder: Encoder, max_length: int | None, max_prompt_length: int | None, counts: Counts) -> None:
        self.encoder = encoder
        self.max_length = max_length
        self.max_prompt_length = max_prompt_length
        self.counts = counts

    def __call__(self, row: Row, encoded: list[Ids]) -> Group | None:
        prompt, completions = self._split(encoded, row.conversational)
        early = bool(completions and encoded[0]) and prompt != encoded[0]
        self.counts.rewritten += early and row.conversational
        self.counts.merging += early and not row.conversational
        pairs = [(one, other) for one, other in row.pairs if completions[one] != completions[other]]
        if row.pairs and not pairs:
            self.counts.identical += 1
            return None
        room = self._room(completions)
        if room is not None and room < 1:
            self.counts.dropped += 1
            return None
        if room is not None and len(prompt) > room:
            shorter = self._without_turns(row)
            if shorter is not None:
                self.counts.turns += 1
                prompt, completions = shorter
            else:
                self.counts.trimmed += 1
                prompt = self._trim(prompt, room)
        own = row.columns if len(row.answers) == 1 else {}
        return Group(
            prompt,
            [
                Completion(ids, answer.role, answer.label, answer.score, columns=dict(own))
                for ids, answer in zip(completions, row.answers, strict=True)
            ],
            pairs,
            row.index,
            dict(row.columns),
            row.source,
        )

    def _split(self, encoded: list[Ids], rendered: bool) -> tuple[Ids, list[Ids]]:
        prompt, *whole = encoded
        # Templates may render a prompt alone unlike one that is answered, and tokens may merge across the boundary. One
        # prompt must serve all completions, so it ends where the first of them diverges.
        shared = min((common_prefix(prompt, ids) for ids in whole), default=len(prompt))
        completions = [self.encoder.finish(ids[shared:], rendered=rendered) for ids in whole]
        return prompt[:shared] or self.encoder.start(), completions

    def _room(self, completions: list[Ids]) -> int | None:
        """Tokens left for the prompt; None for no limit."""
        limits = [] if self.max_prompt_length is None else [self.max_prompt_length]
        if self.max_length is not None:
            limits.append(self.max_length - max(map(len, completions), default=0))
        return min(limits, default=None)

    def _without_turns(self, row: Row) -> tuple[Ids, list[Ids]] | None:
        """The row with as few earlier turns left out as make it fit; None when none do."""
        for shorter in fewer_turns(row.prompt):
            texts = self.encoder.texts(row, shorter)
            prompt, completions = self._split(self.encoder.ids(texts, rendered=True), rendered=True)
            room = self._room(completions)
            if room is None or len(prompt) <= room:
                return prompt, completions
        return None

    def _trim(self, prompt: Ids, room: int) -> Ids:
        # Models are at home only behind their BOS, so it is the one token on the left worth keeping.
        if room > 1 and prompt[0] == self.encoder.bos:
            return [prompt[0], *prompt[len(prompt) - room + 1 :]]
        return prompt[len(prompt) - room :]


def common_prefix(ids: Ids, other: Ids) -> int:
    """Number of leading tokens both have in common."""
    if other[: len(ids)] == ids:
        return len(ids)
    return next(
        (n for n, (one, two) in enumerate(zip(ids, other, strict=False)) if one != two), min(len(ids), len(other))
    )


def fewer_turns(prompt: Content) -> Iterator[list[dict[str, object]]]:
    """The conversation with ever more of its earlier turns left out; the system message is the last to go."""
    if isinstance(prompt, str):
        return
    system = [message for message in prompt[:1] if message["role"] == "system"]
    turns = prompt[len(system) :]
    # A turn begins where the user speaks: most templates refuse a conversation that begins in the middle of one.
    starts = [number for number, message in enumerate(turns) if number and message["role"] == "user"]
    for start in starts:
        yield [*system, *turns[start:]]
    if system and turns:
        yield turns[starts[-1] if starts else 0 :]
