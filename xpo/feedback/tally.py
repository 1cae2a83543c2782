"""``Tally``: what a judge was asked, what came of it, and the biases it showed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from xpo.feedback.opinions import in_both_orders


@dataclass
class Counts:
    """Numbers that add up over the questions of a judge; two orders of one question are one question.

    Attributes:
        asked: questions put to it.
        identical: questions about completions that read alike, which are not put.
        failed: questions without a verdict, by reason.
        in_both: questions with a verdict in both orders.
        flips: those of them whose orders disagree about who wins.
        decided: questions with a winner.
        unequal: those of them whose winner and loser differ in length.
        longer_won: those of them that the longer one won.
        length_gap: tokens of winners less those of losers, over decided questions.
        read, written: tokens it cost.
        seconds: time it took.
    """

    asked: int = 0
    identical: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    in_both: int = 0
    flips: int = 0
    decided: int = 0
    unequal: int = 0
    longer_won: int = 0
    length_gap: int = 0
    read: int = 0
    written: int = 0
    seconds: float = 0.0


@dataclass
class Tally(Counts):
    """The counts of a whole run, and those since the last line of the log."""

    _before: Counts = field(default_factory=Counts, repr=False)

    def add(self, as_asked: float | str, turned: float | str | None, lengths: Sequence[int]) -> float | None:
        """Count one question; its verdict, the probability that the first is preferred.

        Args:
            as_asked: the answer, or why there is none.
            turned: the answer with the two in each other's place; None where that was not asked.
            lengths: tokens of the first and of the second.
        """
        self.asked += 1
        for answer in (as_asked, turned):
            if isinstance(answer, str):
                self.failed[answer] += 1
                return None
        assert not isinstance(as_asked, str)
        assert not isinstance(turned, str)
        verdict = as_asked
        if turned is not None:
            verdict = in_both_orders(as_asked, turned)
            self.in_both += 1
            self.flips += (as_asked - 0.5) * (0.5 - turned) < 0
        if verdict != 0.5:
            gap = (lengths[0] - lengths[1]) * (1 if verdict > 0.5 else -1)
            self.decided += 1
            self.unequal += gap != 0
            self.longer_won += gap > 0
            self.length_gap += gap
        return verdict

    def reset(self) -> None:
        """Begin a new line of the log; the counts of the run go on."""
        self._before = replace(_counts(self), failed=Counter(self.failed))

    def metrics(self) -> dict[str, float]:
        """Numbers for the log, since :meth:`reset`; those that nothing is known about are left out.

        ``judge/failed``, ``judge/flip_rate`` and ``judge/longer_won`` are shares: of the questions asked, of those with
        a verdict in both orders, and of those won by one of unequal length. ``judge/length_gap`` is a mean in tokens.
        """
        now, before = _counts(self), self._before
        asked, decided = now.asked - before.asked, now.decided - before.decided
        found: dict[str, float] = {}
        if asked:
            found["judge/asked"] = float(asked)
            found["judge/failed"] = (now.failed.total() - before.failed.total()) / asked
            found["judge/tokens"] = float(now.read - before.read + now.written - before.written)
            found["judge/seconds"] = now.seconds - before.seconds
        if in_both := now.in_both - before.in_both:
            found["judge/flip_rate"] = (now.flips - before.flips) / in_both
        if unequal := now.unequal - before.unequal:
            found["judge/longer_won"] = (now.longer_won - before.longer_won) / unequal
        if decided:
            found["judge/length_gap"] = (now.length_gap - before.length_gap) / decided
        return found

    def lines(self) -> list[str]:
        """Sentences about the whole run."""
        if not self.asked and not self.identical:
            return []
        cost = f", {self.read} tokens read and {self.written} written" if self.read or self.written else ""
        lines = [f"the judge was asked {_questions(self.asked)} and took {self.seconds:.1f} seconds{cost}"]
        if self.identical:
            lines.append(f"{_questions(self.identical)} about completions that read alike were not put to it")
        if self.failed:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.failed.most_common())
            lines.append(f"{_questions(self.failed.total())} had no verdict and taught nothing: {reasons}")
        if self.in_both:
            share = self.flips / self.in_both
            lines.append(f"the order of the two changed who wins in {share:.0%} of {_questions(self.in_both)}")
        if self.unequal:
            share, gap = self.longer_won / self.unequal, self.length_gap / self.decided
            lines.append(
                f"the longer completion won in {share:.0%} of {_questions(self.unequal)}; winners are {abs(gap):.1f} "
                f"tokens {'longer' if gap >= 0 else 'shorter'} on average"
            )
        return lines


def _counts(tally: Tally) -> Counts:
    return Counts(**{name: getattr(tally, name) for name in Counts.__dataclass_fields__})


def _questions(count: int) -> str:
    return "1 question" if count == 1 else f"{count} questions"
