"""CRINGE, of labels and of pairs: the contrast with a sampled token, and the gate."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import flat, hold, mean, sigmoid, softplus
from tests.zoo.whole import (
    CHOSEN,
    DATA,
    LENGTHS,
    REJECTED,
    SHORT,
    VOCABULARY,
    log_softmax,
    logits,
    logps,
    policy,
    sides,
    tokens,
)
from xpo import Batch, Group, Scores
from xpo.api.loss import counts, reduce
from xpo.api.vocabulary import Distributions
from xpo.models.layout import Tree, padded
from xpo.models.scoring import Engine, score
from xpo.testing import run_case
from xpo_zoo.labels.cringe import contrasts, sampled
from xpo_zoo.pairs.pairwise_cringe import gate


def distributed(rows: torch.Tensor, batch: Batch) -> Scores:
    """Scores of a batch from the (n, V) logits of its tokens."""
    own = rows.log_softmax(-1).gather(1, batch.ids[batch.mask][:, None])[:, 0]
    spread = torch.zeros(batch.mask.shape, dtype=rows.dtype).masked_scatter(batch.mask, own)
    return Scores(spread, batch.mask, Distributions(rows, lambda states: states))


def cringe_case(labels: list[bool], hyper: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    ids, lengths = tokens(8, (3, 2, 4)), (3, 2, 4)
    contrast = [[(token + 1 + place) % VOCABULARY for place, token in enumerate(row)] for row in ids]
    contrast = [
        [s if s != y else (s + 1) % VOCABULARY for s, y in zip(*both, strict=True)]
        for both in zip(contrast, ids, strict=True)
    ]

    def loss(found: dict[str, Any]) -> float:
        total = 0.0
        for rows, row_ids, row_contrast, desirable in zip(found["logits"], ids, contrast, labels, strict=True):
            for row, token, instead in zip(rows, row_ids, row_contrast, strict=True):
                alpha = hyper.get("alpha", 1.0)
                total += -log_softmax(row)[token] if desirable else alpha * softplus(row[token] - row[instead])
        return total / sum(lengths)

    data = {"ids": ids, "contrast_ids": contrast, "is_negative": [not desirable for desirable in labels]}
    case = {"loss": "cringe", "hyper": hyper, "policy": {"logits": logits(7, lengths)}, "data": data}
    return case, loss


@pytest.mark.parametrize("labels", [[True, False, False], [True] * 3, [False] * 3, [False, True, False]])
@pytest.mark.parametrize("hyper", [{}, {"alpha": 0.3}])
def test_cringe_is_one_mean_over_the_tokens_of_both_kinds(labels: list[bool], hyper: dict[str, Any]) -> None:
    case, loss = cringe_case(labels, hyper)
    hold(case, loss, **{"share/desirable": sum(labels) / 3})


def test_the_normaliser_cancels_in_the_contrast() -> None:
    case, _ = cringe_case([False] * 3, {})
    before = run_case({"kind": "loss", **case})["loss"]
    shifted = [[[value + 5.0 for value in row] for row in rows] for rows in case["policy"]["logits"]]
    assert run_case({"kind": "loss", **case, "policy": {"logits": shifted}})["loss"] == pytest.approx(before)


def test_the_sampled_token_is_one_of_the_k_likeliest_and_never_the_one_that_is_there() -> None:
    row = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0, -2.0]]).log_softmax(-1)
    draws = torch.linspace(0, 1 - 1e-6, 4001)
    many = row.expand(len(draws), -1)
    for label, k, allowed in ((0, 2, {1, 2}), (4, 2, {0, 1}), (1, 1, {0}), (5, 99, {0, 1, 2, 3, 4})):
        found = sampled(many, torch.full((len(draws),), label), draws, k)
        places = Counter((row - found[:, None]).abs().argmin(-1).tolist())
        assert set(places) == allowed
        total = sum(math.exp(row[0, one]) for one in allowed)
        for one, times in places.items():  # in the proportion of their probabilities
            assert times / len(draws) == pytest.approx(math.exp(row[0, one]) / total, abs=2e-3)


def test_a_draw_beyond_the_last_share_still_finds_a_token() -> None:
    row = torch.tensor([[3.0, 2.0, 1.0, 0.0]]).log_softmax(-1)
    assert sampled(row, torch.tensor([0]), torch.tensor([1.5]), 2).tolist() == row[0, 2:3].tolist()


def labelled(count: int) -> list[Group]:
    groups = tiny.groups("labels", count)
    for number, group in enumerate(groups):
        group.completions[0].label = number % 3 == 0
    return groups


def sampled_contrasts(groups: list[Group], seed: int = 0, engine: Engine | None = None) -> list[list[float]]:
    batch = Batch.of(groups)
    with torch.no_grad():
        scores = score(tiny.model(), batch, *([] if engine is None else [engine]), vocabulary=True)
        found = contrasts(batch, scores, torch.arange(len(batch)), k=5, seed=seed)
    return [row[:length].tolist() for row, length in zip(found, batch.lengths.tolist(), strict=True)]


def test_what_is_sampled_depends_on_the_seed_and_the_row_and_on_nothing_else() -> None:
    groups = labelled(6)
    whole = sampled_contrasts(groups)
    assert whole == sampled_contrasts(groups)
    for part in (groups[:2], groups[2:5], groups[5:]):
        for group, found in zip(part, sampled_contrasts(part), strict=True):
            assert found == pytest.approx(whole[group.row], abs=1e-5)
    assert flat(sampled_contrasts(groups, seed=1)) != pytest.approx(flat(whole), abs=1e-3)
    moved = [replace(group, row=group.row + 100) for group in groups]
    assert flat(sampled_contrasts(moved)) != pytest.approx(flat(whole), abs=1e-3)


def test_the_gradient_is_that_of_the_token_that_was_sampled() -> None:
    """The distributions are computed a second time for the gradient; a second sample would be of another token."""
    groups = labelled(5)
    batch = Batch.of(groups, dtype=torch.float64)
    rows = torch.randn(int(batch.mask.sum()), 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows.requires_grad_()
    batch = replace(batch, ids=batch.ids % 9)
    algorithm = tiny.algorithm("cringe")
    scores = distributed(rows, batch)
    value = reduce(algorithm.loss(batch, scores, None), batch, counts(batch))[0]
    value.backward()
    found = contrasts(batch, scores, torch.arange(len(batch)), k=5)[batch.mask]
    instead = (rows.log_softmax(-1) - found[:, None]).abs().argmin(-1)
    expected = torch.zeros_like(rows)
    desirable = batch.labels[:, None].expand_as(batch.mask)[batch.mask]
    for place, token in enumerate(batch.ids[batch.mask].tolist()):
        if desirable[place]:
            expected[place] = rows[place].softmax(-1)
            expected[place, token] -= 1
        else:
            pull = torch.sigmoid(rows[place, token] - rows[place, instead[place]])
            expected[place, token] += pull
            expected[place, instead[place]] -= pull
    assert rows.grad is not None
    assert torch.allclose(rows.grad, expected / len(rows), atol=1e-12)


def test_positives_may_be_held_constant() -> None:
    row = torch.tensor([[1.0, 0.5, -0.5]], dtype=torch.float64, requires_grad=True)
    batch = Batch.of(
        [replace(one, completions=[replace(one.completions[0], ids=[1], label=False)]) for one in labelled(1)]
    )
    slopes = []
    for detach in (False, True):
        algorithm = tiny.algorithm("cringe", k=1, detach_positives=detach)
        value = reduce(algorithm.loss(batch, distributed(row, batch), None), batch, counts(batch))[0]
        slopes.append(torch.autograd.grad(value, row)[0][0])
    pull = sigmoid(0.5 - 1.0)
    assert slopes[0].tolist() == pytest.approx([-pull, pull, 0.0])
    shares = row.detach().softmax(-1)[0]
    constant = [pull * ((place == 1) - float(share)) for place, share in enumerate(shares)]
    assert slopes[1].tolist() == pytest.approx(constant)


@pytest.mark.parametrize("name", ["cringe", "pairwise_cringe"])
def test_cringe_is_the_same_in_both_layouts(name: str) -> None:
    groups = labelled(5) if name == "cringe" else tiny.groups("pairs", 5)
    algorithm, model, batch = tiny.algorithm(name), tiny.model(), Batch.of(groups)
    values = []
    for arrange in (padded, Tree()):
        scores = score(model, batch, Engine(arrange=arrange), vocabulary=True)
        values.append(float(reduce(algorithm.loss(batch, scores, None), batch, counts(batch))[0].detach()))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


@pytest.mark.parametrize("name", ["cringe", "pairwise_cringe", "wpo", "tdpo"])
def test_the_loss_of_a_step_does_not_depend_on_its_micro_batches(name: str) -> None:
    groups = labelled(6) if name == "cringe" else tiny.groups("pairs", 6)
    algorithm, model, other = tiny.algorithm(name), tiny.model(), tiny.model(1)
    totals = counts(Batch.of(groups))

    def part(some: list[Group]) -> float:
        batch = Batch.of(some)
        scores = score(model, batch, vocabulary=True)
        reference = score(other, batch, vocabulary=True).detach()
        return float(reduce(algorithm.loss(batch, scores, reference), batch, totals)[0].detach())

    assert part(groups[:1]) + part(groups[1:3]) + part(groups[3:]) == pytest.approx(part(groups), rel=1e-5)


CONTRAST = [
    [[(token + 1) % VOCABULARY for token in chosen], [(token + 2) % VOCABULARY for token in rejected]]
    for chosen, rejected in zip(DATA["chosen_ids"], DATA["rejected_ids"], strict=True)
]
PAIR_DATA = {"chosen_ids": DATA["chosen_ids"], "rejected_ids": DATA["rejected_ids"], "contrast_ids": CONTRAST}


def pairwise(found: dict[str, Any], alpha: float, gates: list[float]) -> float:
    total = 0.0
    for place, weight in enumerate(gates):
        total -= weight * sum(logps(found["chosen_logits"][place], DATA["chosen_ids"][place]))
        rejected = zip(found["rejected_logits"][place], DATA["rejected_ids"][place], CONTRAST[place][1], strict=True)
        total += weight * alpha * sum(softplus(row[token] - row[instead]) for row, token, instead in rejected)
    return total / (sum(LENGTHS) + sum(SHORT))


def gates(found: dict[str, Any], b: float, tau: float) -> list[float]:
    sums = sides(found, lambda rows, ref_rows, ids: sum(logps(rows, ids)))
    return [sigmoid((b - (chosen - rejected)) / tau) for chosen, rejected in sums]


@pytest.mark.parametrize(("alpha", "b", "tau"), [(1.0, 0.0, 1.0), (0.4, -3.0, 2.0)])
@pytest.mark.parametrize("detached", [False, True])
def test_pairwise_cringe(alpha: float, b: float, tau: float, detached: bool) -> None:
    frozen = gates(policy(), b, tau)

    def loss(found: dict[str, Any]) -> float:
        return pairwise(found, alpha, frozen if detached else gates(found, b, tau))

    hyper = {"alpha": alpha, "b": b, "tau": tau, "detach_gate": detached}
    hold({"loss": "pairwise_cringe", "hyper": hyper, "policy": policy(), "data": PAIR_DATA}, loss, gate=mean(frozen))


def test_pairwise_cringe_with_an_open_gate_is_cringe_on_both_sides() -> None:
    case = {"kind": "loss", "policy": policy(), "data": PAIR_DATA, "hyper": {"b": 1e9, "alpha": 0.6}}
    paired = run_case({**case, "loss": "pairwise_cringe"})["loss"]
    lines = [*CHOSEN, *REJECTED]
    data = {
        "ids": [*DATA["chosen_ids"], *DATA["rejected_ids"]],
        "contrast_ids": [*(chosen for chosen, _ in CONTRAST), *(rejected for _, rejected in CONTRAST)],
        "is_negative": [False] * 3 + [True] * 3,
    }
    alone = run_case(
        {"loss": "cringe", "kind": "loss", "policy": {"logits": lines}, "data": data, "hyper": {"alpha": 0.6}}
    )
    assert paired == pytest.approx(alone["loss"])


def test_a_pair_stops_training_beyond_the_margin() -> None:
    chosen, rejected = torch.tensor([-3.0, -3.0, -800.0]), torch.tensor([-3.0, -900.0, -3.0])
    assert gate(chosen, rejected, 0.0, 1.0).tolist() == [0.5, 0.0, 1.0]
    assert gate(chosen, rejected, -10.0, 10.0)[0] == pytest.approx(sigmoid(-1.0))
