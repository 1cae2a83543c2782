"""Pairs with what a reference says of them, for the tests of the methods that compare the two."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.zoo.byhand import flat, near, ragged
from xpo import Batch, Completion, Group, Loss, Scores
from xpo.api.loss import counts, reduce
from xpo.testing import run_case

#: Of cases that stay clear of every kink, and of equal values to sort.
SEED = 9


def pairs(loss: str, hyper: dict[str, Any], count: int = 5, spread: float = 1.0, **data: Any) -> dict[str, Any]:
    w, r = ragged(SEED, count), ragged(SEED + 1, count)
    reference = {"ref_chosen": near(w, SEED + 2, spread), "ref_rejected": near(r, SEED + 3, spread)}
    return {"loss": loss, "hyper": hyper, "policy": {"chosen": w, "rejected": r}, "data": {**reference, **data}}


def ratios(case: Mapping[str, Any], role: str, policy: Mapping[str, Any] | None = None) -> list[float]:
    rows = zip((policy or case["policy"])[role], case["data"][f"ref_{role}"], strict=True)
    return [sum(own) - sum(theirs) for own, theirs in rows]


def margins(case: Mapping[str, Any], policy: Mapping[str, Any] | None = None) -> list[float]:
    return [a - b for a, b in zip(ratios(case, "chosen", policy), ratios(case, "rejected", policy), strict=True)]


def kl(p: float, q: float) -> float:
    """Between two coins, given their probabilities."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


GPO: dict[str, Callable[[float], float]] = {
    "logistic": lambda z: math.log(1 + math.exp(-z)),
    "hinge": lambda z: max(0.0, 1 - z),
    "squared": lambda z: (z - 1) ** 2,
    "exponential": lambda z: math.exp(-z),
    "truncated_quadratic": lambda z: max(0.0, 1 - z) ** 2,
    "savage": lambda z: 1 / (1 + math.exp(z)) ** 2,
}
NAMES = (
    *(
        "dpo",
        "simpo",
        "robust_dpo",
        "ipo",
        "ld_dpo",
        "dpo_norm",
        "hinge_norm",
        "dpop",
        "beta_dpo",
        "r_dpo",
        "exo",
        "nca",
    ),
    *("bco_pair", "apo_zero", "apo_down", "discopop", "aot", "aot_unpaired", "rpo", "rpo_reward_aware", "sppo"),
)
#: Every method, those with branches in each of them.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in NAMES},
    **{f"gpo {f}": ("gpo", {"f": f}) for f in GPO},
    **{f"f_dpo {d}": ("f_dpo", {"divergence": d}) for d in ("reverse_kl", "forward_kl", "js", "alpha")},
    **{f"reward-aware {d}": ("rpo_reward_aware", {"distance": d}) for d in ("squared", "fwd_kl")},
    "ipo on sums": ("ipo", {"length_normalize": False, "tau": 0.4}),
    "hard sppo": ("sppo", {"hard": True, "scale": 1.0}),
    "rpo without NLL": ("rpo", {"alpha": 0.0}),
    "wide discopop": ("discopop", {"tau": 2.0, "beta": 1.0}),
    "smoothed dpo": ("dpo", {"label_smoothing": 0.1}),
    "smoothed aot": ("aot", {"label_smoothing": 0.1}),
    "dearer length": ("r_dpo", {"alpha": 0.9}),
}
each_method = pytest.mark.parametrize("key", METHODS)


def batch_of(lengths: Sequence[tuple[int, int]], dtype: torch.dtype = torch.float64) -> Batch:
    groups = [
        Group(
            [1],
            [Completion([0] * n, "chosen", score=0.9 - 0.1 * i), Completion([0] * m, "rejected", score=0.1 * i)],
            [(0, 1)],
            row=i,
        )
        for i, (n, m) in enumerate(lengths)
    ]
    return Batch.of(groups, dtype=dtype)


def said(
    batch: Batch, chosen: Sequence[float], rejected: Sequence[float], dtype: torch.dtype = torch.float64
) -> Scores:
    """Log-probabilities with these sums, the whole of it on the first token."""
    values = torch.zeros(batch.mask.shape, dtype=dtype)
    values[batch.chosen, 0] = torch.tensor(chosen, dtype=dtype)
    values[batch.rejected, 0] = torch.tensor(rejected, dtype=dtype)
    return Scores(values.requires_grad_(), batch.mask)


def value_of(loss: Loss, batch: Batch) -> torch.Tensor:
    return reduce(loss, batch, counts(batch))[0]


def same(one: dict[str, Any], other: dict[str, Any], factor: float = 1.0) -> None:
    a, b = run_case(one), run_case(other)
    assert a["loss"] == pytest.approx(factor * b["loss"], abs=1e-10)
    assert flat([*a["grad"].values()]) == pytest.approx([factor * g for g in flat([*b["grad"].values()])], abs=1e-10)


def observed(method: Any, chosen: Sequence[float], rejected: Sequence[float], **more: Any) -> Loss:
    """Show a method pairs with these log-ratios."""
    batch = replace(batch_of([(1, 1)] * len(chosen)), **more)
    policy = said(batch, chosen, rejected)
    return method.loss(batch, policy, Scores(torch.zeros_like(policy.logps), batch.mask))
