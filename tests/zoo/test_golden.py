"""Losses, gradients and metrics against numbers worked out from the papers' equations, without the code under test.

The numbers come from plain Python, with the gradient written down by hand. A larger file of test vectors may lie beside
the repository; its cases run through the same door.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from xpo.plugins import load
from xpo.testing.golden import run_case

Ragged = list[list[float]]

#: dtype -> tolerance of the loss and of the gradient; of float32 relative to the largest value.
TOLERANCES = {torch.float64: (1e-10, 1e-7), torch.float32: (2e-5, 1e-4)}


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def ragged(seed: int, count: int, scale: float = 3.0) -> Ragged:
    rng = random.Random(seed)
    return [[round(-scale * rng.random(), 4) for _ in range(rng.randint(1, 5))] for _ in range(count)]


def near(values: Ragged, seed: int, spread: float = 0.5) -> Ragged:
    rng = random.Random(seed)
    return [[round(value + spread * (rng.random() - 0.5), 4) for value in row] for row in values]


def spread(gradients: Sequence[float], like: Ragged) -> Ragged:
    """A gradient with respect to a sum over tokens is the same for each of them."""
    return [[gradient] * len(row) for gradient, row in zip(gradients, like, strict=True)]


def smoothed(z: float, e: float) -> tuple[float, float]:
    """Logistic loss and its derivative."""
    return (1 - e) * softplus(-z) + e * softplus(z), -(1 - e) * sigmoid(-z) + e * sigmoid(z)


def dpo(beta: float, e: float, seed: int = 1, spread_of_ratios: float = 0.5) -> dict[str, Any]:
    w, l = ragged(seed, 5), ragged(seed + 1, 5)  # noqa: E741 - the papers' letters
    ref_w, ref_l = near(w, seed + 2, spread_of_ratios), near(l, seed + 3, spread_of_ratios)
    ratios = [[sum(p) - sum(r) for p, r in zip(*both, strict=True)] for both in ((w, ref_w), (l, ref_l))]
    found = [smoothed(beta * (a - b), e) for a, b in zip(*ratios, strict=True)]
    pull = [beta * slope / 5 for _, slope in found]
    chosen, rejected = ([beta * ratio for ratio in some] for some in ratios)
    return {
        "loss": "cdpo" if e else "dpo",
        "hyper": {"beta": beta, **({"label_smoothing": e} if e else {})},
        "policy": {"chosen": w, "rejected": l},
        "data": {"ref_chosen": ref_w, "ref_rejected": ref_l},
        "expected": {
            "loss": sum(value for value, _ in found) / 5,
            "grad": {"chosen": spread(pull, w), "rejected": spread([-p for p in pull], l)},
            "metrics": {
                "rewards/chosen": sum(chosen) / 5,
                "rewards/rejected": sum(rejected) / 5,
                "rewards/margins": sum(a - b for a, b in zip(chosen, rejected, strict=True)) / 5,
                "rewards/accuracies": sum(a > b for a, b in zip(chosen, rejected, strict=True)) / 5,
                "logps/chosen": sum(map(sum, w)) / 5,
                "length/rejected": sum(map(len, l)) / 5,
            },
        },
    }


def simpo(beta: float, gamma: float | None, e: float = 0.0, sft: float = 0.0, share: float | None = None) -> dict:
    w, l = ragged(11, 4), ragged(12, 4)  # noqa: E741
    margin = gamma if gamma is not None else beta * (0.5 if share is None else share)
    found = [smoothed(beta * (sum(a) / len(a) - sum(b) / len(b)) - margin, e) for a, b in zip(w, l, strict=True)]
    tokens = sum(map(len, w))
    hyper: dict[str, Any] = {"beta": beta, "label_smoothing": e, "sft_weight": sft}
    hyper |= {} if gamma is None else {"gamma": gamma}
    hyper |= {} if share is None else {"gamma_beta_ratio": share}
    return {
        "loss": "simpo",
        "hyper": hyper,
        "policy": {"chosen": w, "rejected": l},
        "data": {},
        "expected": {
            # The NLL is a mean over tokens of all completions, not a mean of means.
            "loss": sum(value for value, _ in found) / 4 - sft * sum(map(sum, w)) / tokens,
            "grad": {
                "chosen": [
                    [beta * slope / (4 * len(row)) - sft / tokens] * len(row)
                    for (_, slope), row in zip(found, w, strict=True)
                ],
                "rejected": [
                    [-beta * slope / (4 * len(row))] * len(row) for (_, slope), row in zip(found, l, strict=True)
                ],
            },
            "metrics": {
                "rewards/chosen": beta * sum(sum(a) / len(a) for a in w) / 4,
                "logps/rejected": sum(sum(b) / len(b) for b in l) / 4,
            },
        },
    }


def kto(beta: float, weights: tuple[float, float], labels: list[bool], drift: float) -> dict[str, Any]:
    n = len(labels)
    y, kl = ragged(21, n), ragged(22, n)
    ref, kl_ref = near(y, 23), [[value - drift for value in row] for row in near(kl, 24)]
    log_ratios = [sum(a) - sum(b) for a, b in zip(kl, kl_ref, strict=True)]
    z0 = max(0.0, sum(log_ratios) / n)
    value, pull = 0.0, []
    for a, b, label in zip(y, ref, labels, strict=True):
        sign, weight = (1, weights[0]) if label else (-1, weights[1])
        v = sigmoid(sign * beta * (sum(a) - sum(b) - z0))
        value += weight * (1 - v) / n
        pull.append(-sign * weight * beta * v * (1 - v) / n)  # z0 carries no gradient
    return {
        "loss": "kto",
        "hyper": {"beta": beta, "desirable_weight": weights[0], "undesirable_weight": weights[1]},
        "policy": {"completion": y},
        "data": {"ref_completion": ref, "kl_policy": kl, "kl_ref": kl_ref, "label": labels},
        "expected": {
            "loss": value,
            "grad": {"completion": spread(pull, y)},
            "metrics": {"kl": z0, "share/desirable": sum(labels) / n},
        },
    }


def rloo(low: float, high: float) -> dict[str, Any]:
    y = ragged(31, 6)
    old = near(y, 32, 0.4)
    advantages = [1.5, -0.7, 0.9, -1.2, 0.3, -0.8]
    # Sequence ratios on both sides of both clips, with advantages of both signs.
    for row, ratio in zip(range(6), (1.5, 1.5, 0.6, 0.6, 1.1, 0.9), strict=True):
        old[row][0] += sum(y[row]) - sum(old[row]) - math.log(ratio)
    value, pull, clipped = 0.0, [], 0
    for a, b, advantage in zip(y, old, advantages, strict=True):
        ratio = math.exp(sum(a) - sum(b))
        bounded = min(max(ratio, 1 - low), 1 + high)
        worse = max(-advantage * ratio, -advantage * bounded)
        value += worse / 6
        active = worse == -advantage * ratio
        pull.append(-advantage * ratio / 6 if active else 0.0)
        clipped += not active
    return {
        "loss": "rloo",
        "hyper": {"eps_low": low, "eps_high": high},
        "policy": {"logps": y},
        "data": {"old_logps": old, "advantages": advantages},
        "expected": {
            "loss": value,
            "grad": {"logps": spread(pull, y)},
            "metrics": {"clip_fraction": clipped / 6},
        },
    }


LABELS = [True, False, False, True, True, False]
OWN: dict[str, Callable[[], dict[str, Any]]] = {
    "dpo": lambda: dpo(0.1, 0.0),
    "dpo, strong beta": lambda: dpo(3.0, 0.0, seed=5),
    "dpo, policy is the reference": lambda: dpo(0.1, 0.0, spread_of_ratios=0.0),
    "dpo, hundreds of nats apart": lambda: dpo(1.0, 0.0, spread_of_ratios=600.0),
    "cdpo": lambda: dpo(0.2, 0.1),
    "simpo, default margin": lambda: simpo(2.5, None),
    "simpo, gamma": lambda: simpo(2.0, 1.3),
    "simpo, gamma is not scaled by beta": lambda: simpo(10.0, 3.0),
    "simpo, share of beta": lambda: simpo(4.0, None, share=0.25),
    "simpo, smoothed": lambda: simpo(2.0, 0.5, e=0.2),
    "simpo, with NLL": lambda: simpo(2.0, 1.0, sft=0.7),
    "kto": lambda: kto(0.1, (1.0, 1.0), LABELS, drift=0.2),
    "kto, z0 clamped": lambda: kto(0.5, (1.0, 1.0), LABELS, drift=-0.6),
    "kto, weights": lambda: kto(0.3, (1.33, 0.7), LABELS, drift=0.1),
    "kto, one label only": lambda: kto(0.1, (1.0, 1.0), [True] * 4, drift=0.1),
    "rloo": lambda: rloo(0.2, 0.2),
    "rloo, higher upper clip": lambda: rloo(0.2, 0.6),
}


def flat(values: Any) -> list[float]:
    return [number for value in values for number in flat(value)] if isinstance(values, list) else [float(values)]


def compare(found: dict[str, Any], expected: dict[str, Any], dtype: torch.dtype) -> None:
    loss, gradient = TOLERANCES[dtype]
    relative = dtype == torch.float32

    def bound(tolerance: float, values: Sequence[float]) -> float:
        # A gradient of 50,000 has no ten digits behind the point, in double precision either.
        return tolerance * max(1e-3 if relative else 1.0, *map(abs, values))

    assert abs(found["loss"] - expected["loss"]) <= bound(loss, [expected["loss"], 1.0])
    assert set(found["grad"]) == set(expected["grad"])
    for role, values in expected["grad"].items():
        numbers, wanted = flat(found["grad"][role]), flat(values)
        assert len(numbers) == len(wanted)
        allowed = bound(gradient, wanted)
        assert max(abs(a - b) for a, b in zip(numbers, wanted, strict=True)) <= allowed, role


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", OWN)
def test_equations(name: str, dtype: torch.dtype) -> None:
    case = OWN[name]()
    found = run_case(case, dtype=dtype)
    compare(found, case["expected"], dtype)
    if dtype == torch.float64:
        for metric, value in case["expected"]["metrics"].items():
            assert found["metrics"][metric] == pytest.approx(value, abs=1e-10), metric


def test_the_own_cases_reach_the_corners_they_are_named_after() -> None:
    assert OWN["kto, z0 clamped"]()["expected"]["metrics"]["kl"] == 0.0
    assert OWN["kto"]()["expected"]["metrics"]["kl"] > 0.1
    assert 0 < OWN["rloo"]()["expected"]["metrics"]["clip_fraction"] < 1
    assert OWN["dpo, policy is the reference"]()["expected"]["loss"] == pytest.approx(math.log(2))
    assert OWN["dpo, hundreds of nats apart"]()["expected"]["loss"] > 50


ROWS = [[1.0, 0.0, 3.0], [2.0, 2.0, -1.0]]


def test_advantages_leave_the_own_sample_out() -> None:
    found = run_case({"loss": "rloo_advantages", "kind": "function", "hyper": {"beta": 0.0}, "data": {"rewards": ROWS}})
    expected = [[row[i] - (sum(row) - row[i]) / 2 for i in range(3)] for row in ROWS]
    assert flat(found["outputs"]["advantages"]) == pytest.approx(flat(expected), abs=1e-12)


def test_advantages_take_the_kl_off_the_clipped_reward() -> None:
    logps = [[[-1.0, -2.0], [-0.5], [-1.5]], [[-2.0], [-1.0, -1.0, -0.5], [-3.0]]]
    ref = [[[-1.5, -1.0], [-0.7], [-1.0]], [[-2.5], [-1.5, -0.5, -0.75], [-2.0]]]
    case = {
        "loss": "rloo_advantages",
        "kind": "function",
        "hyper": {"beta": 0.3, "reward_clip": [-0.5, 2.0], "normalize": True},
        "data": {"rewards": ROWS, "logps": logps, "ref_logps": ref},
    }
    found = run_case(case)["outputs"]
    penalised = [
        [min(max(r, -0.5), 2.0) - 0.3 * (sum(p) - sum(q)) for r, p, q in zip(*row, strict=True)]
        for row in zip(ROWS, logps, ref, strict=True)
    ]
    raw = [row[i] - (sum(row) - row[i]) / 2 for row in penalised for i in range(3)]
    mean = sum(raw) / 6
    deviation = math.sqrt(sum((value - mean) ** 2 for value in raw) / 5)
    assert flat(found["penalised_rewards"]) == pytest.approx(flat(penalised), abs=1e-12)
    assert flat(found["advantages"]) == pytest.approx([(v - mean) / (deviation + 1e-4) for v in raw], abs=1e-12)


def shared_cases() -> list[dict[str, Any]]:
    """The cases of the larger file that installed algorithms claim; none where the file is not there."""
    path = Path(os.environ.get("XPO_SHARED", ROOT.parent / "shared")) / "golden" / "cases.json"
    if not path.is_file():
        return []
    classes = [entry.cls for entry in load().algorithms.values()]
    claimed = {name for cls in classes for name in (*cls.golden, *cls.functions)}
    return [case for case in json.loads(path.read_text("utf-8"))["cases"] if case["loss"] in claimed]


def same(found: Any, expected: Any, tolerance: float) -> bool:
    if isinstance(expected, dict):
        return all(same(found[key], value, tolerance) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(same(a, b, tolerance) for a, b in zip(found, expected, strict=True))
    if found is None or expected is None:
        return found is expected
    return abs(float(found) - float(expected)) <= tolerance * max(1.0, abs(float(expected)))


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("case", shared_cases(), ids=lambda case: case["id"])
def test_shared_vectors(case: dict[str, Any], dtype: torch.dtype) -> None:
    found, expected = run_case(case, dtype=dtype), case["expected"]
    if case["kind"] == "function":
        assert same(found["outputs"], expected["outputs"], TOLERANCES[dtype][0])
        return
    compare(found, expected, dtype)
    metrics = {name: value for name, value in expected["metrics"].items() if name in found["metrics"]}
    for name, value in metrics.items():
        mean = sum(flat(value)) / len(flat(value))
        assert found["metrics"][name] == pytest.approx(mean, abs=1e-9 if dtype == torch.float64 else 1e-3), name


def test_every_algorithm_of_the_zoo_claims_vectors() -> None:
    own = [entry.cls for entry in load().algorithms.values() if entry.supplier.distribution == "xpo"]
    assert own
    for cls in own:
        assert cls.golden, cls.name
