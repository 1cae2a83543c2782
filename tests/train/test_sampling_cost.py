"""What sampling took on all ranks together: counts add up, and times are those of the slowest."""

from __future__ import annotations

import pytest

from xpo.train.ranks import added, gathered
from xpo.train.sampling_cost import SamplingCost, of_all_ranks


def test_counts_add_up_and_times_do_not() -> None:
    costs = [
        SamplingCost(seconds=9.0, sampling_seconds=4.0, tokens=100, prompts=8, dropped=1),
        SamplingCost(seconds=7.0, sampling_seconds=5.0, tokens=60, prompts=8, dropped=2),
    ]
    found = of_all_ranks(costs)
    assert (found["prompts"], found["dropped"], found["tokens"]) == (16, 3, 160)
    assert found["seconds"] == 5.0
    assert found["tokens_per_second"] == pytest.approx(32.0)
    assert found["judging_seconds"] == 5.0  # 9 - 4, more than 7 - 5


def test_nothing_sampled_has_no_rate() -> None:
    assert of_all_ranks([SamplingCost()])["tokens_per_second"] == 0.0


def test_sums_by_key() -> None:
    assert added([{"a": 1.0, "b": 2.0}, {"b": 0.5}, {}]) == {"a": 1.0, "b": 2.5}


def test_one_process_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xpo.train.ranks.gather_object", lambda mine: [*mine, *mine])
    assert gathered("x", 1) == ["x"]
    assert gathered("x", 2) == ["x", "x"]
