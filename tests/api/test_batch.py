"""Batches, scores and the arithmetic that losses share."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from xpo import Batch, Completion, Group, Scores
from xpo.api.math import k1, k2, k3, leave_one_out, log1mexp, smoothed


def groups() -> list[Group]:
    """A pair, a list of three of which one is not trained, and a single completion."""
    return [
        Group([1], [Completion([5, 0], "rejected"), Completion([0, 6, 7], "chosen")], pairs=[(1, 0)], row=4),
        Group(
            [2, 3],
            [
                Completion([8], score=1.5, columns={"weight": 2.0}),
                Completion([9, 9], trainable=False, columns={"old": [0.1, 0.2]}),
                Completion([4], score=-1.0, label=True),
            ],
            columns={"margin": 3.0},
        ),
        Group([1], [Completion([], "empty")]),
    ]


def test_the_layout() -> None:
    batch = Batch.of(groups())
    assert len(batch) == 6
    assert batch.ids.tolist() == [[5, 0, 0], [0, 6, 7], [8, 0, 0], [9, 9, 0], [4, 0, 0], [0, 0, 0]]
    assert batch.mask.int().tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert batch.lengths.tolist() == [2, 3, 1, 2, 1, 0]
    assert batch.group.tolist() == [0, 0, 1, 1, 1, 2]
    assert batch.roles == ("rejected", "chosen", "completion", "completion", "completion", "empty")
    assert (batch.chosen.tolist(), batch.rejected.tolist()) == ([1], [0])
    assert batch.trainable.tolist() == [True, True, True, False, True, True]
    assert batch.labels.tolist() == [False, False, False, False, True, False]
    assert batch.scores[2] == 1.5
    assert batch.scores[4] == -1.0
    assert batch.scores[[0, 1, 3, 5]].isnan().all()
    assert batch.where("chosen", "empty").tolist() == [1, 5]
    assert batch.where("nothing").tolist() == []


def test_columns_by_completion_token_and_group() -> None:
    batch = Batch.of(groups(), dtype=torch.float64)
    assert batch.columns["weight"][2] == 2.0
    assert batch.columns["weight"].isnan().sum() == 5
    assert batch.columns["old"].shape == (6, 3)
    assert batch.columns["old"][3].tolist() == [0.1, 0.2, 0.0]
    assert batch.group_columns["margin"].isnan().tolist() == [True, False, True]
    assert batch.columns["old"].dtype == batch.scores.dtype == torch.float64


def test_a_column_is_of_one_kind() -> None:
    mixed = [Group([1], [Completion([5], columns={"x": 1.0}), Completion([5], columns={"x": [1.0]})])]
    with pytest.raises(TypeError, match="'x'"):
        Batch.of(mixed)


def test_lists_are_ragged_and_go_back() -> None:
    batch = Batch.of(groups())
    values = torch.arange(1.0, 7.0)
    assert batch.lists(values, fill=-1.0).tolist() == [[1, 2], [3, 5], [6, -1]]
    assert batch.unlists(batch.lists(values)).tolist() == [1, 2, 3, 0, 5, 6]
    chosen, rejected = batch.pairs(values)
    assert (chosen.tolist(), rejected.tolist()) == ([2], [1])


def test_an_empty_batch() -> None:
    batch = Batch.of([])
    assert len(batch) == 0
    assert batch.lists(torch.zeros(0)).shape == (0, 0)
    assert float(batch.global_mean(torch.zeros(0))) == 0.0


def test_means_and_deviations_over_ranks() -> None:
    """Two ranks with the values (1, 2, 6) and (3): each adds the other's sums."""
    mine, theirs = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([3.0])
    everything = torch.cat([mine, theirs])
    sums = iter(
        [
            torch.tensor([theirs.sum(), 1.0]),
            torch.tensor([theirs.sum(), 1.0]),
            torch.tensor([(theirs - everything.mean()).square().sum(), 1.0]),
        ]
    )
    batch = replace(Batch.of(groups()), reduce=lambda tensor: tensor + next(sums))
    assert float(batch.global_mean(mine.requires_grad_())) == 3.0
    mean, deviation = batch.global_moments(mine)
    assert float(mean) == 3.0
    assert float(deviation) == pytest.approx(float(everything.std()))
    assert not mean.requires_grad
    assert float(replace(batch, reduce=lambda tensor: tensor, idle=True).global_mean(mine)) == 0.0


def test_scores_sum_in_float32_and_average_over_their_own_tokens() -> None:
    mask = torch.tensor([[True] * 1000, [True] * 10 + [False] * 990, [False] * 1000])
    logps = torch.full((3, 1000), -1.0).masked_fill(~mask, 0.0)
    logps[0] = -0.0999
    scores = Scores(logps.bfloat16(), mask)
    exact = 1000 * float(torch.tensor(-0.0999).bfloat16())
    assert scores.sum().dtype == torch.float32
    assert float(scores.sum()[0]) == pytest.approx(exact, abs=1e-3)
    assert scores.mean().tolist() == pytest.approx([exact / 1000, -1.0, 0.0], abs=1e-5)
    assert Scores(logps.double(), mask).sum().dtype == torch.float64


def test_log1mexp_at_both_ends() -> None:
    for value in (-1e-12, -1e-3, -0.5, -math.log(2), -1.0, -30.0, -700.0):
        a = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        found = log1mexp(a)
        expected = math.log(-math.expm1(value)) if value > -1 else math.log1p(-math.exp(value))
        assert float(found.detach()) == pytest.approx(expected, rel=1e-12)
        found.backward()
        assert float(a.grad) == pytest.approx(1 / -math.expm1(-value) if value > -700 else 0.0, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("e", [0.0, 0.1, 0.3])
def test_smoothed_is_finite_everywhere_and_lowest_at_the_log_odds(e: float) -> None:
    z = torch.tensor([-1e4, -50.0, 0.0, 50.0, 1e4], requires_grad=True)
    loss = smoothed(z, e)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert z.grad.isfinite().all()
    assert float(loss.detach()[2]) == pytest.approx(math.log(2))
    if e:
        best = torch.tensor(math.log((1 - e) / e), dtype=torch.float64, requires_grad=True)
        smoothed(best, e).backward()
        assert float(best.grad) == pytest.approx(0.0, abs=1e-12)


def test_leave_one_out() -> None:
    rewards = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]], dtype=torch.float64)
    expected = [[1 - 4, 2 - 3.5, 6 - 1.5], [-1.5, -1.5, 3.0]]
    assert leave_one_out(rewards).tolist() == [pytest.approx(row) for row in expected]
    with pytest.raises(ValueError, match="at least two"):
        leave_one_out(rewards[:, :1])


def test_kl_estimators() -> None:
    logps, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    assert k1(logps, reference).tolist() == [0.5, -1.0]
    assert k2(logps, reference).tolist() == [0.125, 0.5]
    assert k3(logps, reference).tolist() == pytest.approx([math.exp(-0.5) - 1 + 0.5, math.exp(1) - 1 - 1])
