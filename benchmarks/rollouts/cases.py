"""What is measured: the cases, and the sides that each sets against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Side:
    """One way to take the steps.

    Attributes:
        name: what the record calls it.
        title: what the tables call it.
        library: whose trainer it is.
        algorithm: xpo's name of the method.
        settings: what the trainer is told besides what all sides are told.
    """

    name: str
    title: str
    library: Literal["trl", "xpo"]
    algorithm: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One question. The first of the sides is what the others are compared with."""

    name: str
    title: str
    sides: tuple[Side, ...]


CASES: Mapping[str, Case] = {
    case.name: case
    for case in (
        Case(
            "rloo",
            "RLOO with the KL to the reference in the reward",
            (Side("trl", "TRL", "trl", "rloo"), Side("xpo", "xpo", "xpo", "rloo")),
        ),
    )
}
