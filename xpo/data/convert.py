"""Turn one kind of data into another, where nothing is lost or what is lost is plain to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from xpo.api.groups import COLUMNS, Kind
from xpo.data.counts import Counts
from xpo.data.rows import Answer, Row
from xpo.errors import DataError

#: Which pairs a list makes: its best against its worst, or every two of different score.
Pairing = Literal["best_worst", "all"]


def convert(
    rows: list[Row],
    have: Kind,
    want: Kind,
    counts: Counts,
    *,
    pairing: Pairing = "best_worst",
    scored: bool = False,
    origin: str = "The data",
) -> tuple[list[Row], str | None]:
    """The rows as data of the kind ``want``, and one sentence on what was done; None when nothing was.

    Args:
        rows: rows of the kind ``have``.
        have: what the data is.
        want: what the algorithm learns from.
        counts: counts rows that fall away in ``identical``, ``tied`` and ``merged``.
        pairing: how lists become pairs.
        scored: give labelled completions a number too; then they can be made of lists.
        origin: what messages call the data.
    """
    if have == want:
        return rows, None
    if want == "demonstrations" and have == "rollouts":
        raise DataError(f"{origin} has prompts and no completions to learn. Columns needed: {COLUMNS[want]}.")
    if want == "rollouts":
        return _prompts(rows, counts), "Only the prompts of the data are used, each once."
    if want == "demonstrations":
        return _demonstrations(rows), _DEMONSTRATED[have]
    if (have, want) == ("lists", "pairs"):
        make = {"best_worst": _best_worst, "all": _all_pairs}[pairing]
        return _paired(rows, make, counts), _PAIRED[pairing]
    if (have, want) == ("pairs", "labels"):
        return [row for pair in rows for row in _labels(pair, scored)], _LABELLED
    if (have, want) == ("lists", "labels") and scored:
        return [row for several in rows for row in _apart(several)], "Each list became its completions, with scores."
    if (have, want) == ("pairs", "lists"):
        return [_list(row) for row in rows], "Each pair became a list of two: chosen scores 1, rejected 0."
    there = list(dict.fromkeys(name for row in rows for name in row.source))
    raise DataError(
        f"{origin} is data of the kind '{have}', and '{want}' cannot be made from it. "
        f"Columns needed: {COLUMNS[want]}. It has: {', '.join(there)}."
    )


_DEMONSTRATED = {
    "pairs": "Of each pair the chosen completion is learned.",
    "lists": "Of each list the best completion is learned.",
    "labels": "Desirable completions are learned; undesirable ones are left out.",
    "forget": "Completions to retain are learned; those to forget are left out.",
}
_LABELLED = "Each pair became two labelled completions: chosen is desirable, rejected is not."
_PAIRED = {
    "best_worst": "Each list became one pair: its best completion against its worst.",
    "all": "Each list became all its pairs of completions with different scores.",
}


def _prompts(rows: list[Row], counts: Counts) -> list[Row]:
    found: dict[str, Row] = {}
    for row in rows:
        key = row.prompt_key()
        if key in found:
            counts.merged += 1
        else:
            found[key] = replace(row, answers=[], pairs=[], columns={})
    return list(found.values())


def _demonstrations(rows: list[Row]) -> list[Row]:
    found = []
    for row in rows:
        worth = [one for one in row.answers if one.label is not False and one.role not in ("rejected", "forget")]
        if worth:
            best = max(worth, key=lambda one: one.score if one.score is not None else 0.0)
            found.append(replace(row, answers=[Answer(best.content)], pairs=[], columns={}))
    return found


def _labels(row: Row, scored: bool) -> list[Row]:
    found = []
    for answer in row.answers:
        label = answer.role == "chosen"
        labelled = Answer(answer.content, label=label, score=float(label) if scored else None)
        found.append(replace(row, answers=[labelled], pairs=[], columns={}))
    return found


def _apart(row: Row) -> list[Row]:
    return [replace(row, answers=[answer], pairs=[], columns={}) for answer in row.answers]


def _list(row: Row) -> Row:
    scores = {"chosen": 1.0, "rejected": 0.0}
    return replace(row, answers=[Answer(answer.content, score=scores[answer.role]) for answer in row.answers], pairs=[])


def _paired(rows: list[Row], make: Callable[[Row], Row], counts: Counts) -> list[Row]:
    found = []
    for row in rows:
        if len({answer.score for answer in row.answers}) < 2:
            counts.tied += 1
            continue
        paired = make(row)
        if paired.pairs:
            found.append(paired)
        else:
            counts.identical += 1
    return found


def _best_worst(row: Row) -> Row:
    def score(answer: Answer) -> float:
        return answer.score if answer.score is not None else 0.0

    best, worst = max(row.answers, key=score), min(row.answers, key=score)
    answers = [replace(best, role="chosen"), replace(worst, role="rejected")]
    return replace(row, answers=answers, pairs=[(0, 1)] if best.content != worst.content else [])


def _all_pairs(row: Row) -> Row:
    pairs = [
        (one, other)
        for one, better in enumerate(row.answers)
        for other, worse in enumerate(row.answers)
        if (better.score or 0.0) > (worse.score or 0.0) and better.content != worse.content
    ]
    return replace(row, pairs=pairs)
