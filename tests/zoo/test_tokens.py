"""Methods that read whole next-token distributions: TDPO, WPO, CRINGE and its pairwise form."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import flat, hold, mean, near, sigmoid, softplus
from xpo import Batch, Group, Scores, SettingError
from xpo.api.loss import counts, reduce
from xpo.api.vocabulary import Distributions
from xpo.models.layout import Tree, padded
from xpo.models.scoring import Engine, score
from xpo.testing import run_case
from xpo_zoo.labels.cringe import contrasts, sampled
from xpo_zoo.pairs.pairwise_cringe import gate
from xpo_zoo.pairs.tdpo import forward_kl
from xpo_zoo.pairs.wpo import log_weights

VOCABULARY = 4
LENGTHS = (3, 1, 2)

Logits = list[list[list[float]]]
Ids = list[list[int]]


def logits(seed: int, lengths: tuple[int, ...] = LENGTHS, scale: float = 2.0) -> Logits:
    rng = random.Random(seed)
    return [[[round(scale * rng.gauss(0, 1), 4) for _ in range(VOCABULARY)] for _ in range(n)] for n in lengths]


def tokens(seed: int, lengths: tuple[int, ...] = LENGTHS) -> Ids:
    rng = random.Random(seed)
    return [[rng.randrange(VOCABULARY) for _ in range(n)] for n in lengths]


def log_softmax(row: list[float]) -> list[float]:
    normaliser = math.log(sum(map(math.exp, row)))
    return [value - normaliser for value in row]


def logps(rows: list[list[float]], ids: list[int]) -> list[float]:
    return [log_softmax(row)[token] for row, token in zip(rows, ids, strict=True)]


def kl(rows: list[list[float]], ref_rows: list[list[float]]) -> float:
    """Sum over tokens of KL(ref || policy)."""
    total = 0.0
    for row, ref_row in zip(rows, ref_rows, strict=True):
        pairs = zip(log_softmax(row), log_softmax(ref_row), strict=True)
        total += sum(math.exp(ref) * (ref - own) for own, ref in pairs)
    return total


SHORT = (2, 3, 1)
CHOSEN, REJECTED = logits(1), logits(2, SHORT)
DATA: dict[str, Any] = {
    "chosen_ids": tokens(3),
    "rejected_ids": tokens(4, SHORT),
    "ref_chosen_logits": near(CHOSEN, 5, 1.5),
    "ref_rejected_logits": near(REJECTED, 6, 1.5),
}


def policy() -> dict[str, Any]:
    return {"chosen_logits": near(CHOSEN, 0, 0.0), "rejected_logits": near(REJECTED, 0, 0.0)}


def sides(found: dict[str, Any], read: Any) -> list[tuple[float, float]]:
    """``read(logits, reference logits, ids)`` of the chosen and of the rejected completion of each pair."""
    columns = [
        [
            read(*row)
            for row in zip(found[f"{role}_logits"], DATA[f"ref_{role}_logits"], DATA[f"{role}_ids"], strict=True)
        ]
        for role in ("chosen", "rejected")
    ]
    return list(zip(*columns, strict=True))


def ratio(rows: list[list[float]], ref_rows: list[list[float]], ids: list[int]) -> float:
    return sum(logps(rows, ids)) - sum(logps(ref_rows, ids))


def ratios(found: dict[str, Any]) -> list[tuple[float, float]]:
    return sides(found, ratio)


def kls(found: dict[str, Any]) -> list[tuple[float, float]]:
    return sides(found, lambda rows, ref_rows, ids: kl(rows, ref_rows))


# TDPO


def tdpo_metrics(beta: float) -> dict[str, float]:
    found_ratios, found_kls = ratios(policy()), kls(policy())
    return {
        "kl/chosen": mean([k for k, _ in found_kls]),
        "kl/rejected": mean([k for _, k in found_kls]),
        "kl/margin": mean([c - r for c, r in found_kls]),
        "rewards/chosen": beta * mean([r + k for (r, _), (k, _) in zip(found_ratios, found_kls, strict=True)]),
    }


def test_tdpo1_lets_the_gradient_through_both_kls() -> None:
    def loss(found: dict[str, Any]) -> float:
        both = zip(ratios(found), kls(found), strict=True)
        return mean([softplus(-0.4 * ((rc - rr) - (kr - kc))) for (rc, rr), (kc, kr) in both])

    hold({"loss": "tdpo1", "hyper": {"beta": 0.4}, "policy": policy(), "data": DATA}, loss, **tdpo_metrics(0.4))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
def test_tdpo2_stops_the_gradient_at_the_chosen_kl_alone(alpha: float) -> None:
    frozen = [chosen for chosen, _ in kls(policy())]

    def loss(found: dict[str, Any]) -> float:
        both = zip(ratios(found), frozen, kls(found), strict=True)
        return mean([softplus(-0.3 * ((rc - rr) - alpha * (kr - kc))) for (rc, rr), kc, (_, kr) in both])

    hyper = {"beta": 0.3, "alpha": alpha}
    hold({"loss": "tdpo2", "hyper": hyper, "policy": policy(), "data": DATA}, loss, **tdpo_metrics(0.3))


def test_tdpo_is_version_2_unless_version_1_is_asked_for() -> None:
    """The authors' code runs version 1 under the command its README gives for version 2."""
    case = {"kind": "loss", "policy": policy(), "data": DATA}
    tdpo1 = run_case({**case, "loss": "tdpo1", "hyper": {}})["loss"]
    tdpo2 = run_case({**case, "loss": "tdpo2", "hyper": {}})["loss"]
    half = run_case({**case, "loss": "tdpo2", "hyper": {"alpha": 0.5}})["loss"]
    assert tiny.algorithm("tdpo").config.version == 2
    assert tdpo2 == half
    assert abs(tdpo1 - tdpo2) > 1e-4
    whole = run_case({**case, "loss": "tdpo2", "hyper": {"alpha": 1.0}})
    assert whole["loss"] == pytest.approx(tdpo1)  # the same value, another gradient
    slopes = flat(run_case({**case, "loss": "tdpo1", "hyper": {}})["grad"]["chosen_logits"])
    assert flat(whole["grad"]["chosen_logits"]) != pytest.approx(slopes, rel=1e-3)


@pytest.mark.parametrize("version", [1, 2])
def test_tdpo_starts_at_ln_2(version: int) -> None:
    same = {**DATA, "ref_chosen_logits": CHOSEN, "ref_rejected_logits": REJECTED}
    found = run_case({"loss": f"tdpo{version}", "kind": "loss", "hyper": {}, "policy": policy(), "data": same})
    algorithm = tiny.algorithm("tdpo", version=version)
    assert found["loss"] == pytest.approx(math.log(2)) == algorithm.value_at_reference(Batch.of([]))


def test_the_kl_is_finite_where_a_probability_underflows() -> None:
    """softmax().log() makes it 0 times infinity."""
    near_certain = torch.tensor([[0.0, -400.0, -300.0]], requires_grad=True)
    other = torch.tensor([[-200.0, 0.0, -350.0]])
    for own, reference in ((near_certain, other), (near_certain, near_certain.detach())):
        found = forward_kl(own.log_softmax(-1), reference.log_softmax(-1))
        (slope,) = torch.autograd.grad(found.sum(), near_certain)
        assert found.isfinite().all()
        assert slope.isfinite().all()
    assert float(forward_kl(near_certain.log_softmax(-1), other.log_softmax(-1)).detach()) == pytest.approx(400.0)


# WPO


def log_weight(alignment: str, rows: list[list[float]], ids: list[int]) -> float:
    def baseline(row: list[float]) -> float:
        own = log_softmax(row)
        if alignment == "sampled":
            return math.log(sum(math.exp(value) ** 2 for value in own))
        return max(own) if alignment == "greedy" else 0.0

    return mean([value - baseline(row) for value, row in zip(logps(rows, ids), rows, strict=True)])


@pytest.mark.parametrize("alignment", ["sampled", "greedy", "none"])
@pytest.mark.parametrize("clamp", [True, False])
def test_wpo_weighs_dpo_by_averages_and_without_gradient(alignment: str, clamp: bool) -> None:
    found = sides(policy(), lambda rows, ref_rows, ids: log_weight(alignment, rows, ids))
    weights = [math.exp(chosen + rejected) for chosen, rejected in found]
    weights = [min(1.0, weight) for weight in weights] if clamp else weights

    def loss(found: dict[str, Any]) -> float:
        both = zip(weights, ratios(found), strict=True)
        return mean([weight * softplus(-0.2 * (chosen - rejected)) for weight, (chosen, rejected) in both])

    hyper = {"alignment": alignment, "beta": 0.2, "clamp": clamp}
    hold({"loss": "wpo", "hyper": hyper, "policy": policy(), "data": DATA}, loss, weights=mean(weights))


def test_the_weight_of_wpo_is_clamped_at_1() -> None:
    """On a flat distribution with one peak, that peak is likelier than what one samples: the weight exceeds 1."""
    peak = [2.0, 0.0, 0.0, 0.0]
    ids = [[0, 0]]
    one = {"chosen_logits": [[peak, peak]], "rejected_logits": [[peak, peak]]}
    data = {
        "chosen_ids": ids,
        "rejected_ids": ids,
        "ref_chosen_logits": [[peak] * 2],
        "ref_rejected_logits": [[peak] * 2],
    }
    case = {"loss": "wpo", "kind": "loss", "policy": one, "data": data}
    clamped, free = (run_case({**case, "hyper": {"clamp": clamp}})["metrics"]["weights"] for clamp in (True, False))
    assert clamped == 1.0 < free
    assert free == pytest.approx(math.exp(2 * log_weight("sampled", [peak], [0])))


def test_the_weight_of_wpo_does_not_vanish_with_length() -> None:
    """With sums in the place of means the weight of an ordinary completion is some 5e-40."""
    length = 200
    lines = torch.randn(length, VOCABULARY, generator=torch.Generator().manual_seed(0))
    ids = torch.distributions.Categorical(logits=lines).sample()
    own = lines.log_softmax(-1).gather(1, ids[:, None])[:, 0][None]
    mask = torch.ones(1, length, dtype=torch.bool)
    found = log_weights(Scores(own, mask, Distributions(lines, lambda states: states)))
    assert -1.0 < float(found) < 0.5


def test_wpo_reads_distributions_only_where_its_alignment_does() -> None:
    assert tiny.algorithm("wpo").needs.vocabulary
    assert tiny.algorithm("wpo", alignment="greedy").needs.vocabulary
    assert not tiny.algorithm("wpo", alignment="none").needs.vocabulary
    assert tiny.algorithm("wpo", alignment="none").needs.reference


# CRINGE


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


# Pairwise CRINGE


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
