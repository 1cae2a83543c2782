"""The check of metrics: they are documented and numbers, and mean what their names mean everywhere else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xpo.testing.outcome import Outcome
from xpo.testing.report import Cross
from xpo.testing.subject import Subject, listed, spelt

#: What the loop logs by itself, and beginnings of names of which the same is true.
_LOOP = ("loss", "grad_norm", "learning_rate", "epoch", "step", "num_input_tokens_seen", "total_flos")
_BEGINNINGS = ("eval_", "train_", "diagnostics/")
_SAMPLED = ("reward", "reward/std", "reward/same", "length", "finished", "opponent/finished")
#: Rounding of float64.
ROUNDING = 1e-6


def metrics(subject: Subject) -> str:
    """It logs the metrics it documents and no others, each a finite number an item."""
    documented, logged = subject.cls.metrics.keys(), set[str]()
    if taken := sorted(name for name in documented if _loops(name, subject.rollouts)):
        raise Cross(
            f"the metric {listed(taken)} has a name under which the loop itself logs something, and would take its "
            "place; give it another"
        )
    for number, settings in enumerate(subject.variations()):
        if number and logged >= documented:
            break
        for situation in subject.situations:
            outcome = subject.tried(situation, settings)
            if outcome is None:
                continue
            logged |= {f"loss/{term.name}" for term in outcome.returned.terms}
            loss = outcome.returned
            for name, items in {**loss.metrics, **loss.lowest, **loss.highest}.items():
                logged.add(name)
                if name not in documented:
                    raise Cross(
                        f"it logs the metric '{name}'{spelt(settings)} and does not document it; explain it in "
                        "`metrics`"
                    )
                if reason := _unfit(items):
                    raise Cross(f"the metric '{name}' is {reason}{spelt(settings)}")
            if reason := _misnamed(outcome):
                raise Cross(f"{reason}{spelt(settings)}")
    if missing := documented - logged:
        raise Cross(f"it documents {listed(missing)} and never logs that; log it, or drop it from `metrics`")
    return f"{len(documented)} metrics"


def _unfit(items: Any) -> str | None:
    """Why something cannot be logged."""
    if not isinstance(items, Tensor):
        return f"a {type(items).__name__}, not a 1-D tensor; return one number an item"
    if items.dim() != 1:
        return f"a tensor of {items.dim()} dimensions; return a 1-D one, one number an item"
    if not torch.isfinite(items.detach().double()).all():
        return "not finite; leave out the items for which it is not defined"
    return None


def _loops(name: str, rollouts: bool) -> bool:
    """Whether the loop logs something under a name."""
    return name in _LOOP or name.startswith(_BEGINNINGS) or (rollouts and name in _SAMPLED)


def _misnamed(outcome: Outcome) -> str | None:
    """Why a metric does not mean what its name means in every other method; None where they all do.

    Plots, tables and comparisons read these names.
    """
    logged = {name: items.detach().double() for name, items in outcome.returned.metrics.items() if _fit(items)}
    if not all(f"rewards/{role}" in logged for role in ("chosen", "rejected")):
        return None
    chosen, rejected = logged["rewards/chosen"], logged["rewards/rejected"]
    if chosen.shape != rejected.shape:
        return None
    expected = {"rewards/margins": chosen - rejected, "rewards/accuracies": (chosen > rejected).double()}
    for name, values in expected.items():
        if name in logged and abs(float(logged[name].mean() - values.mean())) > ROUNDING * (
            1 + float(values.abs().max())
        ):
            what = (
                "the chosen less the rejected reward" if name.endswith("margins") else "the share of pairs where the "
            )
            what += "" if name.endswith("margins") else "chosen completion has the higher reward"
            return (
                f"the metric '{name}' is {what} in every method, and something else here; take rewards_of_pairs, or "
                "give it another name"
            )
    return None


def _fit(items: object) -> bool:
    return isinstance(items, Tensor) and items.dim() == 1 and items.numel() > 0
