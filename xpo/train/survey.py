"""What the rows of a run are like, as far as it decides what can be learned: lengths, repeats, ties, missing ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from xpo.api.groups import Completion, Group, Kind

#: Fewer rows than this prove nothing about a data set.
ROWS = 50
#: Tokens: a longest completion shorter than this is no limit that others could have been cut at.
LIMIT = 64

#: Roles whose completions are compared with each other; what else a row brings along may well equal one of them.
COMPARED = ("chosen", "rejected", "completion")

#: Share -> what is too much of it, what it means and what people do about it. Clean data sets have next to nothing of
#: the first two; a few ties, repeats or long completions are found everywhere.
REMARKS: Mapping[str, tuple[float, str]] = {
    "contradicted": (
        0.02,
        "of the rows say the opposite of another row. People drop both, or smooth labels where the method can.",
    ),
    "duplicates": (
        0.05,
        "of the rows repeat an earlier one, and weigh as often as they are there. People remove them, also from what "
        "is held out.",
    ),
    "tied": (0.1, "of the rows have equal scores, so chance decides what is preferred. People drop them."),
    "identical": (
        0.1,
        "of the completions are there twice under their prompt. People remove them, or sample at a higher temperature.",
    ),
    "unfinished": (0.05, "of the completions have no end, and teach not to stop. People leave them out."),
    "at_limit": (
        0.05,
        "of the completions have exactly the {longest:.0f} tokens of the longest, as if they had been cut there; with "
        "an end put after them they teach to stop anywhere. People leave them out, or sample again with more room.",
    ),
}

#: A preference as hashes: the prompt, a completion, and the one it is preferred to, or its label.
_Claim = tuple[int, int, int | bool]


def survey(groups: Sequence[Group], kind: Kind) -> dict[str, float]:
    """Shares and means over the rows to learn from; empty where there is too little to tell from.

    ``duplicates``: rows that repeat an earlier one. ``contradicted``: rows that say the opposite of another one.
    ``tied``: rows whose scores are all equal. ``identical``: completions that repeat another one of their row.
    ``unfinished``: completions without their end. ``at_limit``: completions exactly as long as the longest, which has
    ``longest`` tokens. ``length/chosen``, ``length/rejected``: mean tokens of preferred completions and of others.
    ``desirable``: labelled completions that are desirable.
    """
    if len(groups) < ROWS or kind == "rollouts":
        return {}
    found = {"duplicates": _duplicates(groups), "contradicted": _contradicted(groups)}
    rows = [[one for one in group.completions if one.role in COMPARED] for group in groups]
    several = [row for row in rows if len(row) > 1]
    scores = [[one.score for one in row if one.score is not None] for row in several]
    if known := [some for some in scores if len(some) > 1]:
        found["tied"] = sum(len(set(some)) == 1 for some in known) / len(known)
    if several:
        found["identical"] = 1.0 - sum(len({_hash(one) for one in row}) for row in several) / sum(map(len, several))
    completions = [one for group in groups for one in group.completions]
    found["unfinished"] = sum(not one.finished for one in completions) / len(completions)
    longest = max(len(one.ids) for one in completions)
    if longest >= LIMIT:
        found["at_limit"] = sum(len(one.ids) == longest for one in completions) / len(completions)
        found["longest"] = float(longest)
    if labels := [one.label for one in completions if one.label is not None]:
        found["desirable"] = sum(labels) / len(labels)
    sides = [side for group in groups for side in _sides(group)]
    for name, preferred in (("length/chosen", True), ("length/rejected", False)):
        if lengths := [len(one.ids) for one, better in sides if better is preferred]:
            found[name] = sum(lengths) / len(lengths)
    return found


def remarks(found: Mapping[str, float]) -> Iterator[str]:
    """What is off about the rows."""
    for name, (most, text) in REMARKS.items():
        if found.get(name, 0.0) > most:
            yield f"{found[name]:.0%} {text.format_map(found)}"


def _sides(group: Group) -> Iterator[tuple[Completion, bool]]:
    """Completions, and whether they are preferred to others: of a list its best and its worst."""
    pairs, labels = group.pairs, [one for one in group.completions if one.label is not None]
    yield from ((group.completions[place], side == 0) for pair in pairs for side, place in enumerate(pair))
    yield from ((one, bool(one.label)) for one in labels)
    scored = sorted((one.score, place) for place, one in enumerate(group.completions) if one.score is not None)
    if not pairs and not labels and scored and scored[0][0] < scored[-1][0]:
        yield group.completions[scored[-1][1]], True
        yield group.completions[scored[0][1]], False


def _hash(completion: Completion) -> int:
    # Rows come by the million: their tokens are compared as one number each.
    return hash(tuple(completion.ids))


def _duplicates(groups: Sequence[Group]) -> float:
    rows = Counter(
        (hash(tuple(group.prompt_ids)), *((_hash(one), one.role, one.label, one.score) for one in group.completions))
        for group in groups
    )
    return 1.0 - len(rows) / len(groups)


def _contradicted(groups: Sequence[Group]) -> float:
    claims = [list(_claims(group)) for group in groups]
    made = {claim for some in claims for claim in some}
    return sum(any(_opposite(claim) in made for claim in some) for some in claims) / len(groups)


def _claims(group: Group) -> Iterator[_Claim]:
    prompt, ids = hash(tuple(group.prompt_ids)), [_hash(one) for one in group.completions]
    yield from ((prompt, ids[a], ids[b]) for a, b in group.pairs)
    yield from (
        (prompt, own, one.label) for own, one in zip(ids, group.completions, strict=True) if one.label is not None
    )


def _opposite(claim: _Claim) -> _Claim:
    prompt, one, other = claim
    return (prompt, one, not other) if isinstance(other, bool) else (prompt, other, one)
