"""Hold an algorithm against its equation written in plain Python, with the gradient by differences."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from xpo.testing import run_case

Ragged = list[list[float]]
#: Step of the differences; their error is of the order of its fourth power.
STEP = 1e-3


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def ragged(seed: int, count: int, scale: float = 3.0, longest: int = 5) -> Ragged:
    """Log-probabilities of ``count`` completions of 1 to ``longest`` tokens."""
    rng = random.Random(seed)
    return [[round(-scale * rng.random(), 4) for _ in range(rng.randint(1, longest))] for _ in range(count)]


def near(values: Any, seed: int, spread: float = 0.5) -> Any:
    """Numbers close to ``values``, nested alike: what a reference says."""
    rng = random.Random(seed)

    def moved(value: Any) -> Any:
        return (
            [moved(one) for one in value]
            if isinstance(value, list)
            else round(value + spread * (rng.random() - 0.5), 4)
        )

    return moved(values)


def gradient(loss: Callable[[dict[str, Any]], float], policy: dict[str, Any]) -> dict[str, Any]:
    """d loss / d every number of ``policy``, nested alike, by central differences of fourth order."""

    def of(values: list[Any], index: int) -> Any:
        if isinstance(values[index], list):
            return [of(values[index], inner) for inner in range(len(values[index]))]
        kept, found = values[index], []
        for steps in (1, -1, 2, -2):
            values[index] = kept + steps * STEP
            found.append(loss(policy))
        values[index] = kept
        return (8 * (found[0] - found[1]) - (found[2] - found[3])) / (12 * STEP)

    return {key: [of(values, index) for index in range(len(values))] for key, values in policy.items()}


def flat(values: Any) -> list[float]:
    return [number for value in values for number in flat(value)] if isinstance(values, list) else [float(values)]


def hold(case: dict[str, Any], loss: Callable[[dict[str, Any]], float], **metrics: float) -> None:
    """Loss and gradient of ``case`` are those of ``loss``, a function of the case's policy in plain Python.

    What carries no gradient must be worked out before and frozen in ``loss``.
    """
    found = run_case({"kind": "loss", "data": {}, "hyper": {}, **case})
    assert found["loss"] == pytest.approx(loss(case["policy"]), rel=1e-10, abs=1e-10)
    expected = gradient(loss, case["policy"])
    assert set(found["grad"]) == set(expected)
    for key, values in expected.items():
        assert flat(found["grad"][key]) == pytest.approx(flat(values), rel=1e-6, abs=1e-8), key
    for name, value in metrics.items():
        assert found["metrics"][name] == pytest.approx(value, abs=1e-9), name
    narrow = run_case({"kind": "loss", "data": {}, "hyper": {}, **case}, dtype=torch.float32)
    assert narrow["loss"] == pytest.approx(found["loss"], rel=2e-5, abs=2e-5)
