"""The phases of a run, and what each part of it holds where a phase takes most."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from xpo.models.ledger import Label, Ledger

#: The phases there can be, as a plan shows them. ``check``: the guard compares layouts before training.
ORDER = ("load", "check", "forward", "reference", "backward", "optimiser step", "examination", "sampling")


@dataclass(frozen=True)
class Phase:
    """A phase of a run, and the bytes that each part holds when it takes most; libraries are not among them."""

    name: str
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts.values())


class Phases:
    """Phases as they are found; of each, where it comes up several times, the one that takes most.

    Attributes:
        ledger: what is held now.
    """

    def __init__(self, label: Label) -> None:
        self.ledger = Ledger(label)
        self._found: dict[str, Phase] = {}

    @contextmanager
    def during(self, name: str, part: str = "activations") -> Iterator[None]:
        """A phase; what it makes is booked as ``part``, unless its shape says otherwise."""
        with self.ledger.during(part):
            yield
            self.keep(name, self.ledger.highest)

    def keep(self, name: str, parts: Mapping[str, int]) -> None:
        """Take down what a phase holds."""
        phase = Phase(name, {part: size for part, size in parts.items() if size})
        if name not in self._found or self._found[name].total < phase.total:
            self._found[name] = phase

    def add(self, name: str, part: str, size: int) -> None:
        """Add to a phase what no tensor is made for; nothing to one that does not come up."""
        if size and name in self._found:
            parts = self._found[name].parts
            self._found[name] = Phase(name, {**parts, part: parts.get(part, 0) + size})

    def ordered(self) -> list[Phase]:
        """All that came up."""
        return [self._found[name] for name in ORDER if name in self._found]
