"""What labelling came to, added up over all starts of one command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xpo.feedback.tally import Counts, Tally
from xpo.label.labelling import Found
from xpo.train.online import score_of


@dataclass
class Outcome:
    """Numbers about the prompts so far.

    Attributes:
        prompts: labelled, those that brought nothing included.
        rows: written.
        nothing: prompts that brought no row, by reason.
        samples, tokens, seconds: completions sampled, their tokens, and how long that took.
        unfinished, empty: of them, those that were cut off, and those that say nothing.
        decided: prompts whose best completion scores above the worst.
        unequal: of them, those where the two differ in length.
        longer: of these, those whose best is the longer one.
        gap: tokens of the best less those of the worst, over the decided.
    """

    prompts: int = 0
    rows: int = 0
    nothing: Counter[str] = field(default_factory=Counter)
    samples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    unfinished: int = 0
    empty: int = 0
    decided: int = 0
    unequal: int = 0
    longer: int = 0
    gap: int = 0

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Outcome:
        """What :meth:`to_dict` made."""
        return cls(**{**saved, "nothing": Counter(saved["nothing"])})

    def to_dict(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return {**vars(self), "nothing": dict(self.nothing)}

    def add(self, found: Found, rows: int) -> None:
        """Count a prompt that brought so many rows."""
        self.prompts += 1
        self.rows += rows
        self.samples += found.samples
        self.tokens += found.tokens
        self.unfinished += found.unfinished
        self.empty += found.empty
        if found.nothing:
            self.nothing[found.nothing] += 1
            return
        best, worst = max(found.scored.completions, key=score_of), min(found.scored.completions, key=score_of)
        if score_of(best) > score_of(worst):
            gap = len(best.ids) - len(worst.ids)
            self.decided += 1
            self.unequal += gap != 0
            self.longer += gap > 0
            self.gap += gap

    def lines(self, unit: str = "tokens") -> list[str]:
        """Sentences about all of it; ``unit`` is what completions are measured in."""
        lines = [f"{_some(self.prompts, 'prompt')}, {_some(self.rows, 'row')} written"]
        if self.nothing:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.nothing.most_common())
            lines.append(f"{_some(self.nothing.total(), 'prompt')} brought nothing: {reasons}")
        if self.unequal:
            share, gap = self.longer / self.unequal, self.gap / self.decided
            lines.append(
                f"the best completion is longer than the worst in {share:.0%} of {_some(self.unequal, 'prompt')}; "
                f"it is {abs(gap):.1f} {unit} {'longer' if gap >= 0 else 'shorter'} on average"
            )
        if self.samples:
            rate = f", {self.tokens / self.seconds:,.0f} tokens a second" if self.seconds else ""
            lines.append(f"{_some(self.samples, 'completion')} sampled, {self.tokens:,} tokens{rate}")
        if self.unfinished:
            lines.append(
                f"{self.unfinished} of them were cut off and say so (finished: false); training on them teaches to "
                "stop there: raise --max_completion_length, or drop those rows"
            )
        if self.empty:
            lines.append(f"{self.empty} of them say nothing and were left out")
        return lines


def saved_tally(tally: Tally) -> dict[str, Any]:
    """The counts of a judge as JSON values."""
    return {**{name: getattr(tally, name) for name in Counts.__dataclass_fields__}, "failed": dict(tally.failed)}


def restore_tally(tally: Tally, saved: Mapping[str, Any]) -> None:
    """Let a judge go on counting from what :func:`saved_tally` made."""
    for name, value in saved.items():
        setattr(tally, name, Counter(value) if name == "failed" else value)


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
