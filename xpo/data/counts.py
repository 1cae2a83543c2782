"""``Counts``: what happened to the rows between the file and the groups. Nothing is left out without being counted."""

from __future__ import annotations

from dataclasses import dataclass, field

_SHORT = (
    "have no prompt but the one or two words that chosen and rejected both begin with: if their prompt stands "
    "elsewhere, write it into a column 'prompt'"
)
_WITHIN = (
    "have a prompt that ends within a word, because chosen and rejected begin with the same letters: to say where "
    "completions begin, write the prompt into a column 'prompt'"
)
_MERGING = (
    "start the completion early: the tokenizer makes one token of the prompt's end and what follows, so that token is "
    "learned with the completion. Nothing is lost; to part them, end prompts without a space, and begin completions "
    "with one"
)
_REWRITTEN = (
    "start the completion early: once an answer follows, chat template or tokenizer write the end of the prompt "
    "otherwise, and what differs is learned with the completion. Nothing is lost, and nothing needs doing"
)


@dataclass(slots=True)
class Counts:
    """How many rows there were and what became of them.

    Attributes:
        rows: rows read.
        examples: rows that went to the tokenizer, after conversion: a pair may be two labelled completions.
        groups: groups that came out.
        duplicates: rows that repeat an earlier row; they are kept.
        identical: pairs whose two completions are the same text or the same tokens; dropped.
        tied: lists in which no completion scores above another, so that they make no pair; dropped.
        merged: rows whose prompt an earlier row has, when only prompts are wanted.
        merging: groups of text whose prompt ends in tokens that change when a completion follows; it ends before them.
        rewritten: groups of messages whose prompt ends otherwise when a completion follows; it ends before that.
        turns: groups whose prompt lost whole earlier turns to fit.
        trimmed: groups whose prompt lost tokens on the left to fit.
        dropped: groups whose completion alone leaves no room for a prompt.
        implied: pairs whose prompt is the text that chosen and rejected begin with.
        short: those of them that begin with one or two words alike, which is hardly a prompt.
        within: those of them whose prompt ends within a word.
        systems: rows with a system prompt in a column that is not read.
        conversations: conversations in one piece, whose last message is the completion.
        earlier: messages of the assistant before the last in them.
        notes: sentences on the data as a whole.
        max_length: the limit in force, for the message.
        max_prompt_length: the limit on prompts in force, for the message.
    """

    rows: int = 0
    examples: int = 0
    groups: int = 0
    duplicates: int = 0
    identical: int = 0
    tied: int = 0
    merged: int = 0
    merging: int = 0
    rewritten: int = 0
    turns: int = 0
    trimmed: int = 0
    dropped: int = 0
    implied: int = 0
    short: int = 0
    within: int = 0
    systems: int = 0
    conversations: int = 0
    earlier: int = 0
    notes: list[str] = field(default_factory=list)
    max_length: int | None = None
    max_prompt_length: int | None = None

    def lines(self) -> list[str]:
        """What a user should know, one sentence each; empty when every row came through as it was."""
        limits = [f"--max_length {self.max_length}"] if self.max_length is not None else []
        limits += [f"--max_prompt_length {self.max_prompt_length}"] if self.max_prompt_length is not None else []
        limit = " and ".join(limits)
        rows, examples = f"{self.rows} rows", f"{self.examples} rows"
        if self.examples != self.rows:
            examples = f"{self.examples} examples"
        told = (
            (self.duplicates, rows, "are kept though they repeat an earlier row"),
            (self.identical, rows, "dropped: chosen and rejected are the same"),
            (self.tied, rows, "dropped: no completion scores above another"),
            (self.merged, rows, "merged: an earlier row has the same prompt"),
            (
                self.systems,
                rows,
                "have a system prompt in a column of its own, which is not read: write it into the prompt",
            ),
            (self._most(self.short), rows, _SHORT),
            (self._most(self.within), rows, _WITHIN),
            (self.merging, examples, _MERGING),
            (self.rewritten, examples, _REWRITTEN),
            (self.turns, examples, f"shortened: earlier turns of the prompt were left out to fit {limit}"),
            (self.trimmed, examples, f"shortened: the prompt lost tokens on the left to fit {limit}"),
            (
                self.dropped,
                examples,
                f"dropped: the completion alone is longer than --max_length {self.max_length} allows",
            ),
        )
        return [*self.notes, *self._split(), *(f"{number} of {whole} {what}" for number, whole, what in told if number)]

    def _most(self, number: int) -> int:
        """A number that is worth a word where it is most of the implied prompts: of a few it is chance."""
        return number if 2 * number > self.implied else 0

    def _split(self) -> list[str]:
        if not self.conversations:
            return []
        before = "1 earlier one is" if self.earlier == 1 else f"{self.earlier} earlier ones are"
        more = f"; {before} part of a prompt" if self.earlier else ""
        return [f"Of each conversation the last message of the assistant is the completion{more}."]
