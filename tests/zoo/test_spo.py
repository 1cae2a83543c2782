"""SPO: rewards are means over the other samples of a prompt."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import hold, mean, near, ragged
from tests.zoo.compared import WINS, sums
from xpo import Batch, Completion, Group, Scores
from xpo.testing import run_case


def test_spo_rewards_are_means_over_the_others() -> None:
    rng = random.Random(5)
    table = [[0.5] * 4 for _ in range(4)]
    for a, b in itertools.combinations(range(4), 2):
        table[a][b] = rng.random()
        table[b][a] = 1 - table[a][b]
    case = {"loss": "spo_rewards", "kind": "function", "data": {"preference": [table, [[0.5, 1.0], [0.0, 0.5]]]}}
    found = run_case(case)["outputs"]["rewards"]
    assert found[0] == pytest.approx([(sum(row) - 0.5) / 3 for row in table])
    assert mean(found[0]) == pytest.approx(0.5)
    assert found[1] == [1.0, 0.0]


@pytest.mark.parametrize("reused", [False, True])
def test_spo(reused: bool) -> None:
    logps = ragged(111, 5)
    old, advantages = near(logps, 112, 1.0), [0.4, -0.3, 0.0, 0.2, -0.5]
    moved = [math.exp(a - b) if reused else 1.0 for a, b in zip(sums(logps), sums(old), strict=True)]

    def loss(policy: Mapping[str, Any]) -> float:
        rows = zip(policy["logps"], advantages, moved, strict=True)
        return mean([-a * min(m, 1.0) * sum(row) for row, a, m in rows])

    data = {"advantages": advantages, "scores": WINS, **({"old_logps": old} if reused else {})}
    spread = mean([abs(p - 0.5) for p in WINS])
    metrics = {"ratio": mean(moved), "rewards/spread": spread}
    hold({"loss": "spo", "hyper": {"beta": 0.0}, "policy": {"logps": logps}, "data": data}, loss, **metrics)


def test_spo_takes_one_half_and_the_kl_off_the_win_rate() -> None:
    groups = [Group([1], [Completion([2] * n, score=p) for n, p in ((1, 0.75), (3, 0.25))])]
    batch = Batch.of(groups, dtype=torch.float64)
    policy, reference = Scores(-1.0 * batch.mask, batch.mask), Scores(-2.0 * batch.mask, batch.mask)
    found = tiny.algorithm("spo", beta=0.1).experience(batch, policy, reference)
    assert found["kl"].tolist() == [1.0, 3.0]
    assert found["advantages"].tolist() == pytest.approx([0.25 - 0.1, -0.25 - 0.3])
    free = tiny.algorithm("spo", beta=0.0).experience(batch, policy, None)
    assert free["advantages"].tolist() == [0.25, -0.25]
