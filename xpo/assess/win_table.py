"""The table of win rates: numbers, marks, Markdown, CSV and cells for the terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from xpo.assess.answers import Side
from xpo.assess.columns import Column, marks_of
from xpo.assess.position import say as order_decides
from xpo.assess.rates import WinLine, line_of
from xpo.assess.subsets import WHOLE
from xpo.assess.summary import plain
from xpo.assess.table import percent, shown
from xpo.assess.wins import Duel
from xpo.train.intervals import Estimate
from xpo.train.marked import Cells, grid, precise

_ALL = Column("win_rate", "win rate", lambda counts: {}, pooled=True)


@dataclass(frozen=True)
class WinSummary:
    """All that is shown.

    Attributes:
        lines: a line for each model, in the order they were named.
        by: who says what answers are worth.
        models: name -> fingerprint; None for files, and where nothing can tell.
        notes: what a reader should know.
    """

    lines: Sequence[WinLine]
    by: str
    models: Mapping[str, str | None]
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, for ``eval.json``."""
        return {
            "by": self.by,
            "lines": [plain(asdict(line)) for line in self.lines],
            "models": dict(self.models),
            "notes": list(self.notes),
        }


def sum_up(
    duels: Sequence[Duel],
    sides: Mapping[str, Side],
    by: str,
    models: Mapping[str, str | None],
    notes: Sequence[str],
) -> WinSummary:
    """The table of some duels with one and the same opponent."""
    marks = marks_of(_ALL, {one.name: {WHOLE: one.values} for one in duels})
    lines = [replace(line_of(one, sides[one.name], sides[one.against]), mark=marks.get(one.name, "")) for one in duels]
    return WinSummary(lines, by, models, [*notes, *dict.fromkeys(note for line in lines for note in _notes(line, by))])


def _notes(line: WinLine, by: str) -> list[str]:
    found = []
    if line.unjudged:
        reasons = ", ".join(f"{count} {reason}" for reason, count in line.failed.items())
        found.append(f"{line.name}: no verdict of {by} on {line.unjudged} of {line.prompts} prompts ({reasons})")
    if line.prompts and line.ties == line.prompts - line.unjudged:
        found.append(f"{line.name}: every prompt is a tie, so nothing is known of it")
    for name, share in zip((line.name, line.against), line.cut, strict=True):
        if share is not None and share > 0.1:
            found.append(f"{share:.0%} of the answers of {name} were cut off: raise --eval_tokens")
    return [*found, *order_decides(by, line.position)]


def rates(summary: WinSummary) -> list[Cells]:
    """The main table, header first."""
    against = summary.lines[0].against
    head = ["model", f"win rate against {against}, %", "at equal length, %", "wins / ties / losses"]
    rewarded = any(math.isfinite(line.rewards[0].value) for line in summary.lines)
    ordered = any(line.consistent for line in summary.lines)
    head += ["mean reward", "of the other"] if rewarded else []
    head += ["in both orders: wins / losses"] if ordered else []
    head += ["mean length", "of the other", "cut off, %", "of the other, %"]
    rows: list[Cells] = [[(text, "") for text in head]]
    for line in summary.lines:
        row: Cells = [(line.name, ""), (percent(line.rate), line.mark), (percent(line.controlled), "")]
        row.append((f"{line.wins} / {line.ties} / {line.losses}", ""))
        if rewarded:
            row += [(shown(one, 1, 2), "") for one in line.rewards]
        if ordered:
            row.append((" / ".join(map(str, line.consistent)) if line.consistent else "", ""))
        row += [(f"{shown(one, 1, 1)} {line.unit}", "") for one in line.lengths]
        row += [("" if share is None else f"{100 * share:.1f}", "") for share in line.cut]
        rows.append(row)
    return rows


def orders(summary: WinSummary) -> list[Cells]:
    """The position check, header first; empty where the order cannot matter."""
    head = ("model", "flips with the order", "prefers the first", "win rate shown first", "shown second")
    rows: list[Cells] = [[(text, "") for text in head]]
    for line in summary.lines:
        if line.position is not None:
            check = line.position
            told = (check.flips, check.first, check.better_first, check.better_second)
            rows.append([(line.name, ""), *((percent(one), "") for one in told)])
    return rows if len(rows) > 1 else []


LEGEND = (
    "Shares of prompts in per cent, a tie half, with 95 % intervals over prompts; those without a verdict are left "
    "out. At equal length: from a logistic regression of wins on the difference in length. Bold: the best; ≈: not "
    "distinguishable from it (paired t test over prompts, p ≥ 0.05 after Bonferroni)."
)
UNAFFECTED = "Position: not affected, since each answer is read by itself."


def markdown(summary: WinSummary, heading: Sequence[str]) -> str:
    """``eval.md``."""
    parts = ["# Win rates", "", *heading, f"Judged by {summary.by}.", "", *grid(rates(summary)), "", LEGEND, ""]
    parts += ["## Position", ""]
    parts += [*grid(orders(summary)), ""] if orders(summary) else [UNAFFECTED, ""]
    if summary.notes:
        parts += ["## Notes", "", *(f"* {note}" for note in summary.notes), ""]
    return "\n".join(parts)


def comma_separated(summary: WinSummary) -> str:
    """``eval.csv``: a row a model; shares from 0 to 1."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    shares = ["win_rate", "at_equal_length", "mean_reward", "mean_reward_against", "mean_length", "mean_length_against"]
    shares += ["flips", "prefers_first", "shown_first", "shown_second"]
    head = ["model", "against", "by", "prompts", "wins", "ties", "losses", "unjudged", "mark"]
    head += [f"{name}{end}" for name in shares for end in ("", "_low", "_high")]
    writer.writerow([*head, "length_unit", "cut_off", "cut_off_against", "consistent_wins", "consistent_losses"])
    nothing = Estimate(math.nan, math.nan, math.nan)
    for line in summary.lines:
        check = line.position
        told = [line.rate, line.controlled, *line.rewards, *line.lengths]
        told += [check.flips, check.first, check.better_first, check.better_second] if check else [nothing] * 4
        row: list[Any] = [line.name, line.against, summary.by, line.prompts, line.wins, line.ties, line.losses]
        row += [line.unjudged, line.mark, *(precise(one) for estimate in told for one in estimate)]
        row += [line.unit, *(precise(share) for share in line.cut), *(line.consistent or ("", ""))]
        writer.writerow(row)
    return out.getvalue()
