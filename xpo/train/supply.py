"""The micro-batches of each optimiser step where completions are sampled: ahead for several steps, used more than once.

Steps that are sampled for together are a window. A round begins with a window, and before it the reference may move.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from xpo.api.groups import Completion, Group
from xpo.data.order import MicroBatch, MicroStep

Step = list[MicroBatch]
#: Fills the micro-batches of some steps in a row with what is learned from.
Fill = Callable[[Sequence[Step]], list[Step]]


class Supply:
    """Hands out steps whose completions have been sampled.

    Args:
        fill: samples for a window.
        window: steps of the data that are sampled for at once; None for all of a round, or of a pass over the data.
        repeat: how often the sampler takes the steps of a window.
        rounds: parts of the run.
        begin: called when a round begins, but for the first.

    Attributes:
        filled: (epoch, step) -> the micro-batches of every step of the window.
        spent: True when nothing more is to be learned from these samples.
    """

    def __init__(
        self,
        fill: Fill,
        *,
        window: int | None = 1,
        repeat: int = 1,
        rounds: int = 1,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self._fill, self._window, self._repeat = fill, window, repeat
        self._rounds, self._begin = rounds, begin
        self._round = 0
        self._ahead: deque[Step] = deque()
        self.filled: dict[tuple[int, int], Step] = {}
        self.spent = False
        self._last: Step = []

    def next(self, micros: Iterator[MicroBatch], count: int, step: int, steps: int) -> Step:
        """The micro-batches of the next step.

        Args:
            micros: where unfilled ones come from.
            count: how many there are to a step.
            step, steps: number of the optimiser step that comes, and of all.
        """
        found = self._ahead.popleft() if self._ahead else self._taken(micros, count, step, steps)
        self._last = found
        if not self.spent:
            return found
        return [replace(micro, groups=micro.groups[:1], idle=True) for micro in found]

    def last(self) -> Step:
        """The micro-batches that were handed out last."""
        return self._last

    def _taken(self, micros: Iterator[MicroBatch], count: int, step: int, steps: int) -> Step:
        first = list(islice(micros, count))
        if not first or _key(first) in self.filled:
            return self.filled[_key(first)] if first else []
        if self._round + 1 < self._rounds and step >= self._starts(self._round + 1, steps):
            self._round += 1
            self._begin()
        left = self._starts(self._round + 1, steps) - step
        if self._window is not None:
            rest = self._window - first[0].micro.step % self._window
            left = rest if self._repeat > 1 else min(rest, left)
        window = [first]
        while len(window) < left and (more := list(islice(micros, count))):
            window.append(more)
        done = self._fill(window)
        self.filled = {_key(before): after for before, after in zip(window, done, strict=True)}
        self.spent = False
        self._ahead.extend(done[1:])
        return done[0]

    def _starts(self, number: int, steps: int) -> int:
        """The step that a round begins with."""
        return -(-steps * number // self._rounds)

    def save(self, path: Path) -> None:
        """Write what a run needs to go on in the middle of a window."""
        again = self._repeat > 1 or self._window != 1
        steps = [[_plain(micro) for micro in one] for one in self.filled.values()] if again else []
        path.write_text(json.dumps({"round": self._round, "spent": self.spent, "steps": steps}), encoding="utf-8")

    def load(self, path: Path) -> None:
        """Take up what :meth:`save` wrote."""
        state = json.loads(path.read_text(encoding="utf-8"))
        self._round, self.spent = state["round"], state["spent"]
        steps = [[_micro(micro) for micro in one] for one in state["steps"]]
        self.filled = {_key(one): one for one in steps}


def _key(step: Step) -> tuple[int, int]:
    return step[0].micro.epoch, step[0].micro.step


def _plain(micro: MicroBatch) -> dict[str, Any]:
    # What was known of the data row has been used: rewards and judges are done with it.
    groups = [asdict(replace(group, source={})) for group in micro.groups]
    return {"groups": groups, "idle": micro.idle, "micro": asdict(micro.micro)}


def _micro(plain: dict[str, Any]) -> MicroBatch:
    place = plain["micro"]
    groups = [
        Group(
            **{
                **group,
                "completions": [Completion(**one) for one in group["completions"]],
                "pairs": [(a, b) for a, b in group["pairs"]],
            }
        )
        for group in plain["groups"]
    ]
    step = MicroStep(**{**place, "rows": tuple(place["rows"]), "part": tuple(place["part"])})
    return MicroBatch(groups, plain["idle"], step)
