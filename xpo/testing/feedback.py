"""The check that feedback counts, and counts the right way round: what is preferred is made likelier for it.

It needs no promise of the class. Every completion of a step is looked at twice, with the feedback as it is and with the
opposite feedback, and has to be pulled up more where it is the better one. A loss that pulls everything up, or
everything down, keeps to that as well as one that does both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from xpo.api.groups import Completion
from xpo.testing.goals import goals
from xpo.testing.outcome import Outcome
from xpo.testing.report import Cross, NotApplicable
from xpo.testing.subject import APART, NEAR, Subject, spelt
from xpo.testing.trial import Situation, rows_of

#: (row of the data, token ids of a completion).
Text = tuple[int, tuple[int, ...]]
#: Smaller shares of all that is pulled are rounding.
ROUNDING = 1e-9
#: Numbers that turn many a setting into something else: a strength below 0, a share of flipped labels above 1/2.
EDGES = (-1.0, 1.0)
#: How much less likely completions are made, a token, where it is a matter of the whole loss and not of its slope.
FAR = -3.0
#: What makes no difference where feedback is not read.
IGNORED = {
    "pairs": "which completion is chosen and which is rejected",
    "labels": "what the label is",
    "lists": "what the scores are",
    "rollouts": "what the rewards are",
}
#: What is wrong when it works the wrong way round.
FLIPPED = {
    "pairs": "gradient descent makes chosen completions less likely and rejected ones likelier, as the loss falls when "
    "rejected ones gain: its sign is flipped, or chosen and rejected are swapped",
    "labels": "gradient descent makes desirable completions less likely and undesirable ones likelier: the sign is "
    "flipped, or the label is read the wrong way round",
    "lists": "gradient descent makes completions with high scores less likely than those with low ones: the sign is "
    "flipped, or the list is sorted the wrong way round",
    "rollouts": "gradient descent makes samples with high rewards less likely and those with low ones likelier: the "
    "sign of the loss or of the advantages is flipped",
}


def feedback(subject: Subject) -> str:
    """What the feedback prefers is made likelier for it."""
    kind = subject.cls.data
    if kind in ("forget", "demonstrations"):
        return goals(subject)
    if subject.cls.model == "preference":
        raise NotApplicable("completions are read two at once, so none of them has a pull of its own")
    share = share_of(subject, {})
    if share is None:
        raise NotApplicable("no completion of the data is trained as it stands")
    if abs(share) <= ROUNDING:
        raise Cross(
            f"it makes no difference {IGNORED[kind]}: with the opposite feedback the gradient is the same; find who is "
            "preferred by batch.pairs, batch.labels or batch.scores"
        )
    if share < 0:
        if kind == "pairs" and _falls_from_afar(subject):
            return "the loss is lower where chosen completions are far likelier, though it rises to either side of some"
        raise Cross(f"{FLIPPED[kind]}; {_cure(subject)}")
    graded = subject.make().needs.scores  # a label of 0 is then a number to be met, which may be above where it starts
    if kind == "labels" and not graded and "undesirable" not in subject.cls.raises and _raises_both(subject):
        raise Cross(
            "gradient descent makes undesirable completions likelier too, if less than desirable ones: the sign of "
            "their part of the loss is flipped; turn it round, or say so in `raises` if it is meant"
        )
    told = "what is preferred is made likelier for it"
    for settings in _edges(subject):
        turned = share_of(subject, settings)
        if turned is not None and turned < -ROUNDING:
            told += f"; less likely{spelt(settings)}, which is accepted: refuse such values with self.require"
            break
    return told


def _cure(subject: Subject) -> str:
    """What to do about feedback that works the wrong way round."""
    for settings in subject.variations():
        if (share_of(subject, settings) or 0.0) > ROUNDING:
            return f"it is the right way round{spelt(settings)}, so that the default may be what is wrong"
    return "turn it round"


def share_of(subject: Subject, settings: Mapping[str, Any]) -> float | None:
    """How much of all that is pulled goes the right way, less what goes the wrong way: between -1 and 1.

    None where the data does not do, or no completion of it is trained.
    """
    right = total = 0.0
    found = False
    for situation in (NEAR, APART, Situation("equal", 5)):
        both = []
        for one in (situation, replace(situation, turned=True)):
            outcome = subject.tried(one, dict(settings))
            if outcome is not None:
                both.append((_worth(subject, one, outcome), _pulls(outcome)))
        if len(both) < 2:
            continue
        (worth, pulls), (turned, against) = both
        for text in worth.keys() & turned.keys() & (pulls.keys() | against.keys()):
            better = worth[text] - turned[text]
            here, there = pulls.get(text, 0.0), against.get(text, 0.0)  # what collate leaves out is not pulled
            right += better * (here - there)
            total += abs(better) * (abs(here) + abs(there))
            found = True
    return None if not found else right / total if total else 0.0


def _worth(subject: Subject, situation: Situation, outcome: Outcome) -> dict[Text, float]:
    """How good the feedback calls each completion. Those that a row has twice are left out."""
    algorithm = subject.make()
    rows = outcome.batch.groups if subject.rollouts else rows_of(algorithm, situation)

    def value(one: Completion) -> float | None:
        if subject.cls.data == "pairs":
            return {"chosen": 1.0, "rejected": 0.0}.get(one.role)
        if subject.cls.data == "labels" and not algorithm.needs.scores:
            return float(bool(one.label))
        return one.score

    return _once((group.row, one, value(one)) for group in rows for one in group.completions)


def _pulls(outcome: Outcome) -> dict[Text, float]:
    """What gradient descent does to each trained completion."""
    return _once(
        (group.row, one, float(outcome.pull[group.row, place].sum()))
        for group in outcome.batch.groups
        for place, one in enumerate(group.completions)
        if one.trainable
    )


def _once(found: Iterable[tuple[int, Completion, float | None]]) -> dict[Text, float]:
    """Numbers by row and tokens, of those that are there once."""
    numbers: dict[Text, list[float | None]] = {}
    for row, one, number in found:
        numbers.setdefault((row, tuple(one.ids)), []).append(number)
    return {text: some[0] for text, some in numbers.items() if len(some) == 1 and some[0] is not None}


def _raises_both(subject: Subject) -> bool:
    """Whether completions of either label are all made likelier where the policy equals the reference."""
    outcome = subject.once(Situation("equal", 5))
    labels = {group.row: group.completions[0].label for group in outcome.batch.groups}
    pulls = [(labels[row], float(pull.sum())) for (row, place), pull in outcome.pull.items() if place == 0]
    return all(pull > 0 for _, pull in pulls) and {label for label, _ in pulls} == {True, False}


def _falls_from_afar(subject: Subject) -> bool:
    """Whether the loss of pairs is lower with rejected completions far less likely than with the chosen ones so."""
    low, high = (subject.once(replace(NEAR, policy_lift=FAR, lifted=role)).loss for role in ("rejected", "chosen"))
    return low < high


def _edges(subject: Subject) -> Iterator[dict[str, Any]]:
    """Settings with one number at an edge, where that is accepted."""
    for name, (default, _) in subject.cls.settings().items():
        if isinstance(default, (int, float)) and not isinstance(default, bool):
            for value in EDGES:
                settings = {name: type(default)(value)}
                try:
                    subject.make(**settings)
                except Exception:  # however it is said, this value is refused
                    continue
                yield settings
