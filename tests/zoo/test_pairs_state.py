"""Pair methods that keep a running state: moving means, and the pairs that are left out by them."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.referenced import batch_of, observed, said
from xpo import Batch, Scores
from xpo_zoo.pairs.beta_dpo import BetaDPO, BetaDPOConfig, smallest


def test_the_shift_of_bco_is_the_mean_over_micro_batches_of_all_ranks() -> None:
    method = tiny.algorithm("bco_pair", beta=0.5)
    observed(method, [1.0, 3.0], [0.0, 0.0])
    assert method.delta == pytest.approx(0.5)
    other = torch.tensor([6.0, 2.0], dtype=torch.float64)  # sum and number of the other rank's rewards
    observed(method, [2.0], [2.0], reduce=lambda mine: mine + other)
    assert method.delta == pytest.approx((0.5 + (2.0 + 6.0) / 4) / 2)
    idle = tiny.algorithm("bco_pair", beta=0.5)
    observed(idle, [99.0], [99.0], reduce=lambda mine: mine + other, idle=True)
    assert idle.delta == pytest.approx(3.0)  # it follows the others and adds nothing


@pytest.mark.parametrize("name", ["bco_pair", "beta_dpo"])
def test_evaluation_moves_no_state_and_a_checkpoint_brings_it_back(name: str) -> None:
    method = tiny.algorithm(name)
    start = method.state_dict()
    observed(method, [1.0, 2.5, 4.0], [0.0, 1.0, -1.0])
    state = method.state_dict()
    assert all(state[key] != start[key] for key in state)
    with torch.no_grad():
        observed(method, [9.0, 9.0, 8.0], [0.0, 0.0, 0.0])
    assert method.state_dict() == state
    again = tiny.algorithm(name)
    again.load_state_dict(state)
    assert again.state_dict() == state
    one, other = (observed(each, [1.0, 2.0, 0.5], [0.0] * 3).terms[0].values.tolist() for each in (method, again))
    assert one == other
    again.load_state_dict(start)
    assert again.state_dict() == start


GAPS = [0.3, -0.8, 1.4, 0.1, 0.9, -0.2, 30.0, 0.6, -0.5, 0.2]


def kept(method: BetaDPO, gaps: Sequence[float]) -> set[int]:
    values = observed(method, gaps, [0.0] * len(gaps)).terms[0].values
    return {index for index, value in enumerate(values.tolist()) if value}


def test_beta_dpo_leaves_out_a_share_of_the_pairs_and_outliers_first() -> None:
    often = dict.fromkeys(range(10), 0)
    for seed in range(40):
        method = BetaDPO(BetaDPOConfig(selection_seed=seed))
        method.load_state_dict({"gap_mean": 0.2, "gap_std": 0.7, "batches": 3})
        chosen = kept(method, GAPS)
        assert len(chosen) == 8
        for index in chosen:
            often[index] += 1
    assert often[6] == 0  # 30 nats, an outlier
    assert all(20 < often[index] < 40 for index in often if index != 6)  # the others by chance


def test_beta_dpo_draws_without_replacement_by_the_weights() -> None:
    """One pair of three kept: its chances are the weights, exp(-((D - M) / s)^2 / 2)."""
    gaps = [0.0, 1.0, 2.0]
    found = [0, 0, 0]
    for seed in range(1000):
        method = BetaDPO(BetaDPOConfig(selection_seed=seed, rho=0.7, momentum=0.0))
        (index,) = kept(method, gaps)  # without momentum M is 1 and s is 1, those of the batch
        found[index] += 1
    weights = [math.exp(-0.5), 1.0, math.exp(-0.5)]
    for number, weight in zip(found, weights, strict=True):
        assert number / 1000 == pytest.approx(weight / sum(weights), abs=0.035)


def test_beta_dpo_draws_anew_at_every_step_and_alike_in_every_run() -> None:
    method = BetaDPO()
    first, second = kept(method, GAPS), kept(method, GAPS)
    assert [first, second] == [kept(again := BetaDPO(), GAPS), kept(again, GAPS)]
    seen = {frozenset(kept(method, GAPS)) for _ in range(10)}
    assert len(seen) > 1


def test_beta_dpo_keeps_every_pair_in_evaluation() -> None:
    method = BetaDPO()
    with torch.no_grad():
        assert len(kept(method, GAPS)) == len(GAPS)


def on_ranks(work: Sequence[Callable[[Callable[[torch.Tensor], torch.Tensor]], Any]]) -> list[Any]:
    """Run one function a rank, each in a thread, with a sum over all of them."""
    barrier = threading.Barrier(len(work))
    held: dict[int, torch.Tensor] = {}
    found: list[Any] = [None] * len(work)

    def run(rank: int) -> None:
        def total(tensor: torch.Tensor) -> torch.Tensor:
            held[rank] = tensor
            barrier.wait(10)
            result = torch.stack([held[other] for other in range(len(work))]).sum(0)
            barrier.wait(10)
            return result

        found[rank] = work[rank](total)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_beta_dpo_chooses_the_same_pairs_however_they_are_spread_over_ranks() -> None:
    whole = batch_of([(1, 1)] * 10)

    def lossy(method: BetaDPO, places: Sequence[int], reduce: Any, idle: bool = False) -> list[float]:
        batch = Batch.of([whole.groups[place] for place in places], dtype=torch.float64, reduce=reduce, idle=idle)
        policy = said(batch, [GAPS[place] for place in places], [0.0] * len(places))
        return method.loss(batch, policy, Scores(torch.zeros_like(policy.logps), batch.mask)).terms[0].values.tolist()

    alone, spread = BetaDPO(), [BetaDPO() for _ in range(3)]
    shares = [[0, 1, 2, 3, 4, 5, 6], [7, 8, 9], [0]]  # the last rank has no rows of its own
    for _ in range(3):
        expected = lossy(alone, range(10), lambda tensor: tensor)
        parts = on_ranks(
            [
                lambda reduce, rank=rank: lossy(spread[rank], shares[rank], reduce, idle=rank == 2)
                for rank in range(len(shares))
            ]
        )
        assert parts[0] + parts[1] == pytest.approx(expected, rel=1e-12)
        for method in spread:
            assert method.state_dict() == pytest.approx(alone.state_dict(), rel=1e-12)


def test_the_smallest_keys_are_found_from_sums() -> None:
    rng = random.Random(5)
    batch = batch_of([(1, 1)])
    for dtype in (torch.float32, torch.float64):
        for _ in range(50):
            keys = torch.tensor([rng.choice([rng.gauss(0, 2), rng.expovariate(0.01)]) for _ in range(17)], dtype=dtype)
            count = rng.randint(1, 17)
            found = smallest(batch, keys, count)
            assert set(found.nonzero().flatten().tolist()) == set(keys.argsort()[:count].tolist())
    assert smallest(batch, torch.tensor([1e9, 1e9]), 1).all()  # beyond all bounds they are alike
