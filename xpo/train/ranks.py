"""What the processes of a run tell each other, and what they make of it."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from accelerate.utils import gather_object

T = TypeVar("T")
Key = TypeVar("Key", bound=Hashable)


def announced() -> int:
    """How many processes a launcher has started for this run; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def gathered(mine: T, world: int) -> list[T]:
    """What every one of ``world`` ranks gives, in the order of ranks. Every rank must call it at the same point."""
    found: list[T] = gather_object([mine]) if world > 1 else [mine]
    return found


def added(parts: Iterable[Mapping[Key, float]]) -> dict[Key, float]:
    """Sums by key."""
    sums: dict[Key, float] = {}
    for part in parts:
        for key, number in part.items():
            sums[key] = sums.get(key, 0.0) + number
    return sums
