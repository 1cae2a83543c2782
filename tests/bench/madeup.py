"""Made-up results of cells; imports nothing heavy, so that a process that only writes one starts at once."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from typing import Any

PROMPTS = 6
MACHINE = {"xpo_version": "0", "versions": {"torch": "0"}, "device": {"name": "a machine", "kind": "cpu"}}


def numbers(key: str, shift: float = 0.0) -> dict[str, Any]:
    """Made-up numbers of a split, the same for the same key; ``shift`` makes them better."""
    rng = random.Random(key)
    rewards = [rng.gauss(shift, 1) for _ in range(PROMPTS)]
    return {
        "rewards": rewards,
        "lengths": [rng.randint(3, 9) for _ in rewards],
        "finished": [True] * PROMPTS,
        "wins": [float(value > 0) for value in rewards],
        "kl": [rng.random() for _ in rewards],
        "agreed": [float(rng.random() < 0.6) for _ in rewards],
        "texts": ["w1"],
    }


def result(job: Mapping[str, Any]) -> dict[str, Any]:
    """What a stand-in finds out: a pure function of its job."""
    splits = ["test", *(["validation"] if job["shared"]["validation"] else [])]
    if "seed" not in job:
        return {"model": "m", "data": job["data"], "examined": {one: numbers(one) for one in splits}, **MACHINE}
    key = json.dumps([job["method"], job["settings"], job["seed"]], sort_keys=True)
    digest = int(hashlib.sha256(key.encode()).hexdigest()[:4], 16)
    return {
        "steps": 2,
        "tokens": 100,
        "parameters": 10,
        "trainable": 10,
        "examined": {one: numbers(key + one, 0.5) for one in splits},
        "cost": {
            "tokens_per_second": 1.0,
            "seconds": digest / 1000,
            "peak_memory_bytes": 2**20 * 3,
            "peak_gpu_memory_bytes": None,
        },
        **MACHINE,
    }
