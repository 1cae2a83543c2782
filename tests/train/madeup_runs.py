"""Made-up runs, and the notes that they get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests import tiny
from xpo.plugins import load
from xpo.train.advice import advice
from xpo.train.record import RunRecord

KEY = "diagnostics/"


def history(**ends: tuple[float, float]) -> list[dict[str, float]]:
    """Ten entries in which every number goes evenly from one end to the other; ``_`` in a name stays, ``__`` is /."""
    return [
        {"loss": 1.0, "step": n, **{key.replace("__", "/"): a + (b - a) * n / 9 for key, (a, b) in ends.items()}}
        for n in range(10)
    ]


def notes(name: str, entries: Sequence[Mapping[str, Any]], **record: Any) -> list[str]:
    """What a run of a method with this history is told; the keywords are of its record."""
    usual = {"reference": "frozen", "algorithm_settings": {"beta": 0.1}}
    sampling = {"rollout": {} if load().algorithm(name).cls.data == "rollouts" else None}
    made = RunRecord("0", name, **{**usual, "settings": sampling, **record})
    return advice(made, entries, tiny.algorithm(name))
