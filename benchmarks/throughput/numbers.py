"""From the runs of a case to the numbers of a table. Everything is computed from what a record holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.throughput.cases import SIDES
from benchmarks.throughput.flops import Amount, Shape, Work, policy_flops, reference_flops

#: Sides that others are compared with.
BASES = ("trl", "padded")


@dataclass(frozen=True)
class Summary:
    """One side of a case, over the timed steps that all its sides took.

    Attributes:
        title: what the tables call the side.
        failed: why there are no numbers; None when there are.
        steps: seconds of each step, the median over the repeats.
        fastest, slowest: of single steps, over all repeats.
        rows, tokens: a second.
        share: floating-point operations that the steps need, against what the machine does in that time.
        memory, before: peak of the process at the last step and before the first.
        device: peak of the GPU, if there is one.
        losses: at every step, those before the timed ones too.
        speed: how many times as fast as a base.
        difference: largest difference of the loss at any step from that of a base.
        setup: seconds from the start of the process to the first step.
        training: seconds of all steps.
        accuracy: on the rows held out, if any.
        notes: what else a reader should know.
    """

    title: str
    failed: str | None = None
    steps: Sequence[float] = ()
    fastest: float = 0.0
    slowest: float = 0.0
    rows: float = 0.0
    tokens: float = 0.0
    share: float | None = None
    memory: int | None = None
    before: int | None = None
    device: int | None = None
    losses: Sequence[float] = ()
    speed: Mapping[str, float] = field(default_factory=dict)
    difference: Mapping[str, float] = field(default_factory=dict)
    setup: float = 0.0
    training: float = 0.0
    accuracy: float | None = None
    notes: Sequence[str] = ()

    @property
    def step(self) -> float:
        """Seconds of the step in the middle."""
        return median(self.steps)


def summaries(record: Mapping[str, Any], case: Mapping[str, Any]) -> dict[str, Summary]:
    """Every side of a case of a record, in the order of the sides."""
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for run in case["runs"]:
        runs.setdefault(run["side"], []).append(run)
    good = {side: [run for run in some if "failed" not in run] for side, some in runs.items()}
    good = {side: some for side, some in good.items() if some}
    # A side may have been given fewer steps; speeds are compared on the same ones.
    first = record["warmup"]
    last = min((len(run["ends"]) for some in good.values() for run in some), default=0)
    timed = range(min(first, max(last - 1, 0)), last)
    rate = machine_rate(record, case["dtype"])
    found = {}
    for side in SIDES:
        if side in good:
            found[side] = _summary(side, good, case, timed, rate, len(runs[side]))
        elif side in runs:
            found[side] = Summary(SIDES[side].title, failed=str(runs[side][0]["failed"]))
    return found


def machine_rate(record: Mapping[str, Any], dtype: str) -> float | None:
    """The best rate of large matrix products that any run of the record measured, in operations a second.

    One for all sides, so that their shares compare, and the best, so that no share is flattered.
    """
    cases = [case for case in record["cases"] if case["dtype"] == dtype]
    rates = [run["matrix_rate"] for case in cases for run in case["runs"] if "matrix_rate" in run]
    return max(rates, default=None)


def durations(run: Mapping[str, Any]) -> list[float]:
    """Seconds of each step of a run."""
    return [end - start for start, end in pairwise([0.0, *run["ends"]])]


def flops(case: Mapping[str, Any], side: str, steps: Sequence[int]) -> int:
    """Operations that the useful tokens of some steps need on a side."""
    shape = Shape(**case["shape"])
    todo = [_work(case["work"][index]) for index in steps]
    needed = sum(policy_flops(shape, step) for step in todo)
    if case["reference"] and side not in ("warm", "trl-warm"):
        needed += sum(reference_flops(shape, step) for step in todo)
    return needed


def _summary(
    side: str,
    good: Mapping[str, Sequence[Mapping[str, Any]]],
    case: Mapping[str, Any],
    timed: range,
    rate: float | None,
    runs: int,
) -> Summary:
    mine = good[side]
    every = [durations(run) for run in mine]
    steps = [median(run[index] for run in every) for index in timed]
    total = sum(steps)
    todo = [_work(case["work"][index]) for index in timed]
    bases = [base for base in BASES if base in good and base != side]
    peaks = [run["device_peak"] for run in mine if run["device_peak"] is not None]
    judged = [run["accuracy"] for run in mine if "accuracy" in run]
    return Summary(
        title=SIDES[side].title,
        steps=steps,
        fastest=min(run[index] for run in every for index in timed),
        slowest=max(run[index] for run in every for index in timed),
        rows=sum(step.rows for step in todo) / total,
        tokens=sum(step.tokens for step in todo) / total,
        # The cache may be filled before the first step, which is then no part of the steps' time.
        share=None if rate is None or side == "cold" else flops(case, side, timed) / total / rate,
        memory=_largest(run["memory_peak"] for run in mine),
        before=_largest(run["memory_before"] for run in mine),
        device=max(peaks, default=None),
        losses=mine[0]["losses"],
        speed={base: _total(good[base], timed) / total for base in bases},
        difference={base: _difference(mine, good[base]) for base in bases},
        setup=median(run["before_training"] for run in mine),
        training=median(run["ends"][-1] for run in mine),
        accuracy=median(judged) if judged else None,
        notes=_notes(side, mine, runs),
    )


def _notes(side: str, mine: Sequence[Mapping[str, Any]], runs: int) -> list[str]:
    notes = [] if len(mine) == runs else [f"{runs - len(mine)} of {runs} runs failed"]
    odd = [run for run in mine if run["tokens"] is not None and run["tokens"] != run["tokens_expected"]]
    if odd:
        notes.append(f"saw {odd[0]['tokens']} tokens in place of {odd[0]['tokens_expected']}: not the same rows")
    meant = SIDES[side].settings.get("layout")
    if meant is not None and mine[0].get("layout", meant) != meant:
        notes.append(f"the layout was {mine[0]['layout']}, because {meant} cannot be used with this model")
    if side == "warm" and any(run.get("reference_scored") for run in mine):
        notes.append("the cache was not warm: some of the reference was computed again")
    return notes


def _total(runs: Sequence[Mapping[str, Any]], timed: range) -> float:
    every = [durations(run) for run in runs]
    return sum(median(run[index] for run in every) for index in timed)


def _difference(mine: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> float:
    return max(
        abs(float(a) - float(b))
        for one in mine
        for other in others
        for a, b in zip(one["losses"], other["losses"], strict=False)  # one of them may have taken fewer steps
    )


def _largest(values: Any) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _work(body: Mapping[str, Any]) -> Work:
    return Work(**{**body, "trained": Amount(**body["trained"]), "frozen": Amount(**body["frozen"])})
