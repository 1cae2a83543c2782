"""The check that every setting does something: an option that is accepted and ignored is the commonest bug there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import torch

from xpo.errors import DataError
from xpo.testing.alternatives import alternatives
from xpo.testing.outcome import Outcome, difference
from xpo.testing.report import Cross, NotApplicable
from xpo.testing.subject import Subject
from xpo.testing.trial import Situation, prepared, trial

#: Values of other settings that one setting is tried beside.
BESIDE = 4
#: Smaller differences are rounding.
ROUNDING = 1e-12


def settings(subject: Subject) -> str:
    """Every setting changes loss, gradient, data, needs, state or when updates end, for some legal value."""
    names = [item.name for item in fields(subject.cls.Config)]
    if not names:
        raise NotApplicable("it has no settings")
    known = _Known(subject)

    def numeric(name: str) -> bool:
        """Last: what a setting means is more often up to a choice than to a number."""
        return type(getattr(subject.cls.Config(), name)) in (int, float)

    for name in names:
        legal = list(alternatives(subject.cls.Config, name))
        if any(known.differs({}, {name: value}) for value in legal):
            continue
        beside = [base for other in sorted(names, key=numeric) if other != name for base in _some(subject, other)]
        if any(
            known.differs(base, {**base, name: value})
            for base in beside
            for value in alternatives(subject.cls.Config, name, base)
        ):
            continue
        if not legal:
            raise Cross(f"no other value of the setting '{name}' is accepted than its default; drop it, or accept some")
        tried = ", ".join(map(str, legal[:4]))
        raise Cross(
            f"the setting '{name}' changes nothing (tried {tried}); use it in the loss, in collate or in what is "
            "needed, or drop it"
        )
    return ", ".join(names)


def _some(subject: Subject, name: str) -> Iterator[dict[str, Any]]:
    for number, value in enumerate(alternatives(subject.cls.Config, name)):
        if number < BESIDE:
            yield {name: value}


class _Known:
    """What the algorithm does with some settings, worked out when it is asked for and kept."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.situations = [*subject.situations, Situation("hundreds", 4), Situation("equal", 5)]
        self.found: dict[tuple[str, int], Any] = {}

    def differs(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        """Whether anything comes out differently with the ``other`` settings."""
        if self.subject.make(**one).needs != self.subject.make(**other).needs:
            return True
        return any(_apart(self._did(one, number), self._did(other, number)) for number in range(len(self.situations)))

    def _did(self, settings: dict[str, Any], number: int) -> Any:
        key = repr(settings), number
        if key not in self.found:
            self.found[key] = self._do(settings, self.situations[number])
        return self.found[key]

    def _do(self, settings: dict[str, Any], situation: Situation) -> tuple[str, list[Outcome], str] | None:
        """The groups, two steps and the state after them; None where the made-up data does not do."""
        algorithm = self.subject.make(**settings)
        try:
            groups = prepared(algorithm, situation)
            outcomes = [trial(algorithm, groups, situation)]
            if algorithm.state_dict():
                again = Situation("apart", situation.seed + 10)
                outcomes.append(trial(algorithm, prepared(algorithm, again), again))
        except DataError:
            return None
        with torch.no_grad():
            outcomes.append(trial(algorithm, groups, situation, gradient=False))
        return repr(groups), outcomes, repr(algorithm.state_dict())


def _apart(one: tuple[str, list[Outcome], str] | None, other: tuple[str, list[Outcome], str] | None) -> bool:
    if one is None or other is None:
        return False
    same = one[0] == other[0] and one[2] == other[2] and len(one[1]) == len(other[1])
    return not same or any(
        difference(a, b) > ROUNDING or _excess(a) != _excess(b) for a, b in zip(one[1], other[1], strict=True)
    )


def _excess(outcome: Outcome) -> list[float] | None:
    return None if outcome.returned.excess is None else outcome.returned.excess.tolist()
