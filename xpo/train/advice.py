"""The notes at the end of a run: what was off, with its number, and what people do about it. Silent when all is well.

Every threshold is beyond what healthy runs show, those on the embedded data and those of papers: notes that cry wolf
are not read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xpo.api.algorithm import Algorithm
from xpo.train.course import Course
from xpo.train.record import Row, RunRecord
from xpo.train.survey import remarks

#: Notes of a run, at most: the first matter most.
MOST = 5
#: Nats a token that chosen completions lose. Healthy runs lose up to 0.3: then every token is 26% less likely.
DISPLACED = 0.5
#: Correlation of rewards and length that labels do not explain. Healthy runs reach 0.35.
BIASED = 0.5
#: How many times as long as the others preferred completions are. In the usual data sets they are up to 1.3 times.
UNEQUAL = 1.5
#: Growth of samples. Data that prefers more content makes them up to twice as long with good reason.
GROWN = 2.5
#: The same of rollouts, when their rewards follow length.
GROWN_ROLLOUTS = 1.5
#: Share of samples that no longer end by themselves; chance alone makes 0.1 of 32 samples.
ENDLESS = 0.2
#: Share of rollouts that were cut before their end. A third of all rewards is then about fragments.
CUT = 0.3
#: Share of prompts whose rollouts are all rewarded alike. Half of the sampling is then for nothing.
ALIKE = 0.5
#: How many times what the labels of one side weigh together those of the other side may weigh; a third either way.
UNBALANCED = 3.0
#: Effective number of prompts as a share. Slopes of losses, lengths and clips leave 0.3 and more.
FEW = 0.2


def advice(record: RunRecord, history: Sequence[Mapping[str, Any]], algorithm: Algorithm[Any]) -> list[str]:
    """The notes for a run that is over.

    Args:
        record: with its comparison, and under ``data`` the survey of its rows.
        history: the trainer's log entries.
        algorithm: what it learns from, and whether it means to raise what is chosen.
    """
    run = _Run(record, history, algorithm)
    return [note for check in _CHECKS for note in check(run)][:MOST]


@dataclass(frozen=True)
class _Run:
    record: RunRecord
    history: Sequence[Mapping[str, Any]]
    algorithm: Algorithm[Any]

    def course(self, key: str) -> Course | None:
        return Course.of(self.history, key)

    def row(self, name: str) -> Row | None:
        return next((row for row in self.record.comparison if row.name == name), None)

    @property
    def rows(self) -> Mapping[str, float]:
        """The survey of its data."""
        return self.record.data.get("survey") or {}

    @property
    def samples(self) -> bool:
        """Whether it learns from what it samples."""
        return self.record.settings.get("rollout") is not None


def _diverged(run: _Run) -> Iterator[str]:
    lost = [entry["step"] for entry in run.history if not math.isfinite(entry.get("loss", 0.0))]
    if lost:
        yield (
            f"The loss was no finite number at step {lost[0]}{' and later' if len(lost) > 1 else ''}; a model that has "
            "learned from it is worth nothing. People lower --learning_rate, look at settings and data at their "
            f"extremes (`xpo check {run.algorithm.name}`), and take --bf16 for --fp16."
        )


def _displaced(run: _Run) -> Iterator[str]:
    if run.algorithm.lowers and not run.algorithm.raises:
        return  # it does not claim to raise them
    for what in ("gain", "logp"):
        chosen, rejected = (run.course(f"diagnostics/{side}_{what}") for side in ("chosen", "rejected"))
        if chosen is None or rejected is None or not chosen.certain or chosen.change > -DISPLACED:
            continue
        if chosen.change > rejected.change:
            tie = "raise --beta, " if run.record.reference and "beta" in run.record.algorithm_settings else ""
            yield (
                f"The chosen completions lost {-chosen.change:.2f} nats a token while the margin grew: both sides "
                "became unlikely, and what the model writes instead is neither. People lower --learning_rate, "
                f"{tie}add an NLL on the chosen with --sft_coef, or take a method that anchors their likelihood."
            )


def _forgotten(run: _Run) -> Iterator[str]:
    for what in ("gain", "logp"):
        retained = run.course(f"diagnostics/retain_{what}")
        if retained is not None and retained.certain and retained.change < -DISPLACED:
            yield (
                f"The completions to retain lost {-retained.change:.2f} nats a token: more is forgotten than was asked "
                "for. People lower --learning_rate, give retaining more weight, or more rows."
            )


def _lengths(run: _Run) -> Iterator[str]:
    facts = list(_rewarded_for_length(run) if run.samples else _taught_length(run))
    if facts:
        remedy = (
            "penalise length in the reward"
            if run.samples
            else "balance lengths in the data, take a method that normalises or corrects for length"
        )
        told = "; ".join(facts)
        yield f"Length: {told}. The model may take length for quality. People {remedy}, and judge at equal lengths."


def _taught_length(run: _Run) -> Iterator[str]:
    chosen, rejected = (run.rows.get(f"length/{side}") for side in ("chosen", "rejected"))
    if chosen and rejected and not 1 / UNEQUAL < chosen / rejected < UNEQUAL:
        yield f"in the data preferred completions have {chosen:.0f} tokens and the others {rejected:.0f}"
    bias = run.course("diagnostics/length_bias")
    # Without a reference a stand-in is logged in place of the rewards, which are the method's own affair.
    if bias is not None and bias.last > BIASED and run.course("diagnostics/chosen_logp") is None:
        yield f"rewards follow length beyond what the labels say (correlation {bias.last:.2f})"
    row = run.row("mean length")
    if row is not None and row.before and row.after and run.algorithm.data != "forget":
        low, high = row.interval_change or (0.0, 0.0)
        if not 1 / GROWN < row.after / row.before < GROWN and not low <= 0.0 <= high:
            yield f"samples went from {row.before:.0f} to {row.after:.0f} tokens"


def _rewarded_for_length(run: _Run) -> Iterator[str]:
    bias, length = run.course("diagnostics/length_bias"), run.course("length")
    if bias is None or length is None or not length.certain:
        return
    grown = length.last / max(length.first, 1.0)
    longer, shorter = grown > GROWN_ROLLOUTS, grown < 1 / GROWN_ROLLOUTS
    if (longer and bias.last > BIASED) or (shorter and bias.last < -BIASED):
        yield (
            f"sampled completions went from {length.first:.0f} to {length.last:.0f} tokens, and their rewards follow "
            f"length (correlation {bias.last:.2f})"
        )


def _ends(run: _Run) -> Iterator[str]:
    finished, row = run.course("finished"), run.row("ended by itself")
    if run.samples:
        if finished is not None and 1.0 - finished.last > CUT:
            yield (
                f"{1.0 - finished.last:.0%} of the sampled completions were cut before their end, and rewarded as "
                "fragments. People raise --max_completion_length, or set --missing_eos_penalty so that ending pays."
            )
    elif row is not None and row.before is not None and row.after is not None and row.before - row.after > ENDLESS:
        yield (
            f"{row.after:.0%} of the samples ended by themselves, {row.before:.0%} before training. People lower "
            "--learning_rate, and see to it that the completions they train on are whole."
        )


def _alike(run: _Run) -> float:
    same = run.course("reward/same")
    return 0.0 if same is None else same.last


def _rewarded_alike(run: _Run) -> Iterator[str]:
    if _alike(run) > ALIKE:
        yield (
            f"{_alike(run):.0%} of the prompts had all their samples rewarded alike in the end, and taught nothing. "
            "People raise --num_generations or --temperature, choose prompts that are solved now and then, or refine "
            "the reward."
        )


def _few(run: _Run) -> Iterator[str]:
    share = run.course("diagnostics/effective_share")
    if share is not None and share.last < FEW and _alike(run) <= ALIKE:
        yield (
            f"In the end as few as {share.last:.0%} of the prompts carried the update; the others hardly pulled. "
            "People look at the few for wrong labels, train fewer epochs, or smooth labels where the method can."
        )


def _labels(run: _Run) -> Iterator[str]:
    share, settings = run.rows.get("desirable"), run.record.algorithm_settings
    if share is None:
        return
    if share in (0.0, 1.0):
        side = "desirable" if share else "undesirable"
        yield (
            f"All labels are {side}: there is nothing to tell apart, and the model learns to make everything "
            f"{'more' if share else 'less'} likely. People look at how labels are read, and add the other sort."
        )
        return
    weights = [float(settings.get(name, 1.0)) for name in ("desirable_weight", "undesirable_weight")]
    ratio = share * weights[0] / ((1.0 - share) * weights[1])
    if 1 / UNBALANCED <= ratio <= UNBALANCED:
        return
    rare, flag = ("desirable", "--desirable_weight") if ratio < 1 else ("undesirable", "--undesirable_weight")
    wanted = weights[0 if ratio < 1 else 1] * max(ratio, 1.0 / ratio)
    remedy = f"set {flag} to about {wanted:.2g}" if "desirable_weight" in settings else "leave out some of the others"
    yield (
        f"{share:.0%} of the labels are desirable, and {rare} ones weigh {min(ratio, 1.0 / ratio):.2g} times as much "
        f"as the others together: the model mostly learns what the others say. People {remedy}."
    )


def _rows(run: _Run) -> Iterator[str]:
    yield from (f"Data: {remark}" for remark in remarks(run.rows))


_CHECKS: tuple[Callable[[_Run], Iterator[str]], ...] = (
    _diverged,
    _displaced,
    _forgotten,
    _lengths,
    _ends,
    _rewarded_alike,
    _few,
    _labels,
    _rows,
)
