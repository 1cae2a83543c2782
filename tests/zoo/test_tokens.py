"""Methods that read whole distributions: numbers far out, and settings that make no sense."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import flat
from xpo import SettingError
from xpo.testing import run_case


@pytest.mark.parametrize("name", ["tdpo1", "tdpo2", "wpo", "pairwise_cringe"])
def test_losses_and_gradients_are_finite_far_out(name: str) -> None:
    far = [[300.0, -300.0, 0.0, -90.0], [-700.0, 0.0, 10.0, 700.0]]
    data: dict[str, Any] = {"chosen_ids": [[1, 0]], "rejected_ids": [[0, 3]]}
    if name != "pairwise_cringe":
        data |= {"ref_chosen_logits": [far[::-1]], "ref_rejected_logits": [far[::-1]]}
    case = {"loss": name, "kind": "loss", "hyper": {}, "data": data}
    policy = {"chosen_logits": [far], "rejected_logits": [far]}
    found = run_case({**case, "policy": policy}, dtype=torch.float32)
    assert all(map(math.isfinite, [found["loss"], *(x for value in found["grad"].values() for x in flat(value))]))


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("tdpo", {"version": 3}, "version must be 1 or 2, not 3"),
        ("tdpo", {"version": 1, "alpha": 0.5}, "TDPO1 has none"),
        ("tdpo", {"beta": 0.0}, "beta must be positive"),
        ("wpo", {"beta": 0.0}, "beta must be positive"),
        ("wpo", {"alignment": "best"}, "alignment must be one of sampled, greedy, none"),
        ("cringe", {"alpha": -1.0}, "alpha must not be negative"),
        ("cringe", {"k": 0}, "k must be at least 1"),
        ("pairwise_cringe", {"alpha": -1.0}, "alpha must not be negative"),
        ("pairwise_cringe", {"tau": 0.0}, "tau must be positive"),
        ("pairwise_cringe", {"k": 0}, "k must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        tiny.algorithm(name, **wrong)
