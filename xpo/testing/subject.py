"""``Subject``: the algorithm under test, and the situations in which the checks look at it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cached_property
from itertools import islice
from typing import Any

from xpo.api.algorithm import Algorithm
from xpo.errors import DataError
from xpo.testing.alternatives import alternatives
from xpo.testing.outcome import Outcome
from xpo.testing.trial import Situation, prepared, trial

NEAR = Situation()
APART = Situation("apart", 1, columns=True)
#: Values that a setting is tried with where all of them, times all that is looked at, would take too long.
VALUES = 4


class Subject:
    """An algorithm class, and fresh instances of it."""

    def __init__(self, cls: type[Algorithm[Any]]) -> None:
        self.cls = cls
        self._done: dict[tuple[Situation, str], Outcome] = {}

    def make(self, **settings: Any) -> Algorithm[Any]:
        """An instance with default settings but for these."""
        return self.cls(self.cls.Config(**settings))

    @property
    def rollouts(self) -> bool:
        """Whether it learns from what is sampled."""
        return self.cls.data == "rollouts"

    @cached_property
    def situations(self) -> list[Situation]:
        """What any algorithm meets: usual data, data with optional columns, rollouts that are used again."""
        found = [NEAR, APART]
        return found + [replace(one, reused=True) for one in found] if self.rollouts else found

    def once(self, situation: Situation, **settings: Any) -> Outcome:
        """A whole step of a fresh instance. It is kept for the other checks, so it is not to be changed."""
        key = situation, repr(settings)
        if key not in self._done:
            algorithm = self.make(**settings)
            self._done[key] = trial(algorithm, prepared(algorithm, situation), situation)
        return self._done[key]

    def tried(self, situation: Situation, settings: dict[str, Any]) -> Outcome | None:
        """The same; None where the made-up data does not do for these settings."""
        try:
            return self.once(situation, **settings)
        except DataError:
            return None

    def variations(self) -> Iterator[dict[str, Any]]:
        """The default settings, and others in which one of them has another legal value."""
        yield {}
        for item in fields(self.cls.Config):
            for value in islice(alternatives(self.cls.Config, item.name), VALUES):
                yield {item.name: value}


def spelt(settings: dict[str, Any]) -> str:
    """Settings at the end of a clause; nothing for the default ones."""
    return f" with {', '.join(f'{name} {value}' for name, value in settings.items())}" if settings else ""


def listed(names: Any) -> str:
    """Names in quotes."""
    return ", ".join(f"'{name}'" for name in sorted(names)) or "none"
