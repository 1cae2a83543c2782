"""Checks of what a class promises about its loss: where it pulls, and what it is at the start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xpo.testing.outcome import Outcome, Place, relative
from xpo.testing.report import Cross, NotApplicable
from xpo.testing.subject import NEAR, Subject, listed, spelt
from xpo.testing.trial import Situation

#: Smaller pulls, relative to the largest, are rounding.
ROUNDING = 1e-9


def direction(subject: Subject) -> str:
    """Gradient descent makes likelier what ``raises`` names and less likely what ``lowers`` names, where it pulls."""
    cls = subject.cls
    promised = {**dict.fromkeys(cls.raises, 1.0), **dict.fromkeys(cls.lowers, -1.0)}
    if not promised:
        raise NotApplicable("not promised: neither `raises` nor `lowers` is set")
    known, pulled = set[str](), set[str]()
    for settings in subject.variations():
        # Beside the default settings only for what these do not pull at all.
        wanted = {name: promised[name] for name in promised if not settings or name not in pulled}
        for situation in (NEAR, Situation("apart", 1), Situation(seed=2), Situation("apart", 3)) if wanted else ():
            outcome = subject.tried(situation, settings)
            if outcome is not None:
                known |= set().union(*_named(outcome).values())
                pulled |= _kept(outcome, wanted, settings)
    if missing := promised.keys() - pulled:
        raise Cross(
            f"it promises something about {listed(missing)} and pulls no such completion; it has {listed(known)}"
        )
    return ", ".join([f"raises {name}" for name in cls.raises] + [f"lowers {name}" for name in cls.lowers])


def _kept(outcome: Outcome, promised: Mapping[str, float], settings: dict[str, Any]) -> set[str]:
    """The names of which completions are pulled, each of them the way that is promised."""
    pulled = set()
    for place, names in _named(outcome).items():
        for name in names & promised.keys():
            towards = promised[name] * float(outcome.pull[place].sum())
            if towards < -ROUNDING * outcome.largest:
                done, word = ("less likely", "raises") if promised[name] > 0 else ("likelier", "lowers")
                raise Cross(
                    f"gradient descent makes a completion '{name}' {done} (row {place[0]}{spelt(settings)}), against "
                    f"`{word}`; look for a sign that is turned round, or do not promise it"
                )
            if towards > ROUNDING * outcome.largest:
                pulled.add(name)
    return pulled


def _named(outcome: Outcome) -> dict[Place, set[str]]:
    """What a promise may call each trained completion: its role, its label, the best or the worst of its list."""
    found: dict[Place, set[str]] = {}
    for group in outcome.batch.groups:
        scores = [one.score for one in group.completions if one.score is not None]
        for position, one in enumerate(group.completions):
            names = {one.role}
            if one.label is not None:
                names.add("desirable" if one.label else "undesirable")
            if len(scores) > 1 and scores.count(one.score) == 1:  # type: ignore[arg-type]  # None is not among them
                names |= {"best"} if one.score == max(scores) else {"worst"} if one.score == min(scores) else set()
            if one.trainable:
                found[group.row, position] = names
    return found


def value_at_reference(subject: Subject) -> str:
    """The loss has the declared value where the policy equals the reference, whatever the settings."""
    held = 0
    for settings in subject.variations():
        for situation in (Situation("equal"), Situation("equal", 1, columns=True)):
            outcome = subject.tried(situation, settings)
            declared = None if outcome is None else subject.make(**settings).value_at_reference(outcome.batch)
            if outcome is None or declared is None:
                continue
            if relative(declared, outcome.loss, least=1e-3) > 1e-6:
                raise Cross(
                    f"value_at_reference says {declared:.6g}{spelt(settings)}, but where the policy equals the "
                    f"reference the loss is {outcome.loss:.6g}; correct one of them"
                )
            held += 1
    if not held:
        raise NotApplicable("value_at_reference says nothing")
    return f"holds {held} times, with other settings too"
