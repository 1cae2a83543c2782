"""Rows that ride along: beside every row of a step one of another set, taken over and over in ever new order."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from xpo.api.groups import Group


class Beside:
    """A set of rows of which one stands beside every row that is trained on.

    Which one follows from the seed and from how many rows have gone before, so it does not depend on how steps are
    split into micro-batches and ranks. All of them are used equally often, whichever set is larger.
    """

    def __init__(self, groups: Sequence[Group], seed: int) -> None:
        self.groups = groups
        self.seed = seed
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return len(self.groups)

    def at(self, number: int) -> Group:
        """The row beside the row that comes after ``number`` others, counted over all epochs."""
        turn, place = divmod(number, len(self.groups))
        if self._order[0] != turn:
            digest = hashlib.sha256(f"beside {self.seed} {turn}".encode()).digest()
            order = list(range(len(self.groups)))
            random.Random(int.from_bytes(digest[:8], "big")).shuffle(order)
            self._order = turn, order
        return self.groups[self._order[1][place]]
