"""The check that several processes get along: they ask each other for the same sums, and end up with the same state.

Two threads stand for two processes, each with half of a step. A sum is there when both have asked for it: one that is
asked for by one alone would be waited for without end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from torch import Tensor

from xpo.api.algorithm import Algorithm
from xpo.api.batch import Batch
from xpo.api.groups import Group
from xpo.api.loss import counts
from xpo.testing.fabricate import STEP, parts
from xpo.testing.outcome import Outcome, difference, joined
from xpo.testing.report import Cross
from xpo.testing.subject import NEAR, Subject
from xpo.testing.trial import prepared, trial

#: Rounding of float64, of sums in another order.
ROUNDING = 1e-9


def processes(subject: Subject) -> str:
    """Two processes ask each other for the same sums, whatever is in their micro-batches, and keep the same state."""
    whole = subject.once(NEAR)
    as_one = True
    for halves, idle, where in _dealt(subject):
        one, other = (_Process(subject.make(), half) for half in halves)
        _run(one, other, idle)
        if one.alone or other.alone:
            raise Cross(
                f"one process asks the others for a sum that they do not ask for{where}, and training would wait for "
                "it without end; call batch.global_mean and batch.global_moments every time, under no condition on "
                "the data: the mean of no values is 0"
            )
        if one.algorithm.state_dict() != other.algorithm.state_dict():
            raise Cross(
                f"two processes end up with different states{where}: a running value is made of what one process has, "
                "and a checkpoint holds that of the first alone; make it of batch.global_mean, which asks all of them"
            )
        if not idle:
            as_one = as_one and difference(whole, joined([one.outcome, other.outcome])) <= ROUNDING
    return "as one" if as_one else "each with a statistic of its own rows; batch.global_mean makes it one of all"


def _dealt(subject: Subject) -> Iterator[tuple[Sequence[Sequence[Group]], bool, str]]:
    """The rows of two processes, whether those of the second are a stand-in, and what is peculiar, as a clause."""
    algorithm = subject.make()
    groups = prepared(algorithm, NEAR)
    half = STEP // 2
    halves = list(parts(algorithm, groups, [half, half]))
    yield halves, False, ""
    if subject.cls.data == "labels":
        ordered = sorted(groups, key=lambda group: not any(one.label for one in group.completions))
        yield (ordered[:half], ordered[half:]), False, " where it has desirable completions alone"
    yield (halves[0], halves[1][:1]), True, " where theirs is a stand-in (batch.idle)"


class _Alone(Exception):
    """The other process is done and will not answer."""


@dataclass
class _Process:
    """One of two processes.

    Attributes:
        heard: what the other one has said, in order; None at its end.
        failure: what ended it.
    """

    algorithm: Algorithm[Any]
    groups: Sequence[Group]
    heard: SimpleQueue[Tensor | None] = field(default_factory=SimpleQueue)
    found: Outcome | None = None
    failure: BaseException | None = None

    @property
    def alone(self) -> bool:
        """Whether it waited for a sum that the other one did not ask for."""
        return isinstance(self.failure, _Alone)

    @property
    def outcome(self) -> Outcome:
        assert self.found is not None
        return self.found

    def run(self, other: _Process, totals: dict[Any, float], idle: bool) -> None:
        def shared(own: Tensor) -> Tensor:
            other.heard.put(own)
            theirs = self.heard.get()
            if theirs is None:
                raise _Alone
            return own + theirs

        try:
            self.found = trial(self.algorithm, self.groups, NEAR, totals=totals, shared=shared, idle=idle)
        except BaseException as failure:  # it is raised again where the check is made
            self.failure = failure
        finally:
            other.heard.put(None)


def _run(one: _Process, other: _Process, idle: bool) -> None:
    """Let both go through their rows at the same time.

    Raises:
        Exception: what the loss raised in one of them.
    """
    totals = counts(Batch.of([*one.groups, *(() if idle else other.groups)]))
    threads = [
        threading.Thread(target=one.run, args=(other, totals, False)),
        threading.Thread(target=other.run, args=(one, totals, idle)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in (one.failure, other.failure):
        if failure is not None and not isinstance(failure, _Alone):
            raise failure
