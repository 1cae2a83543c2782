"""``Counts``: what happened to the rows between the file and the groups. Nothing is left out without being counted."""

from __future__ import annotations

from dataclasses import dataclass


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
        merging: groups whose prompt ends in tokens that change when a completion follows, so that it ends before them.
        turns: groups whose prompt lost whole earlier turns to fit.
        trimmed: groups whose prompt lost tokens on the left to fit.
        dropped: groups whose completion alone leaves no room for a prompt.
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
    turns: int = 0
    trimmed: int = 0
    dropped: int = 0
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
                self.merging,
                examples,
                "start the completion early: the prompt's last tokens change when text follows it",
            ),
            (self.turns, examples, f"shortened: earlier turns of the prompt were left out to fit {limit}"),
            (self.trimmed, examples, f"shortened: the prompt lost tokens on the left to fit {limit}"),
            (
                self.dropped,
                examples,
                f"dropped: the completion alone is longer than --max_length {self.max_length} allows",
            ),
        )
        return [f"{number} of {whole} {what}" for number, whole, what in told if number]
