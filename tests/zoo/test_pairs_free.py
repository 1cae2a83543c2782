"""Pairwise methods without a reference, against their equations, their limits and the bugs others have had."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import Ragged, hold, mean, ragged, sigmoid, softplus
from xpo import Batch, Completion, DataError, Group, Scores, SettingError
from xpo.api.loss import counts, reduce
from xpo.models.scoring import score
from xpo.testing import run_case
from xpo_zoo.pairs.alphapo import alphapo_reward
from xpo_zoo.pairs.arpo import rejection_penalty
from xpo_zoo.pairs.orpo import log_odds_ratio

CHOSEN, REJECTED, GOLD, PROMPT = ragged(1, 5), ragged(2, 5), ragged(3, 5), ragged(4, 5)
PAIRS = {"chosen": CHOSEN, "rejected": REJECTED}


def copied(**policy: Ragged) -> dict[str, Ragged]:
    return {role: [list(row) for row in rows] for role, rows in policy.items()}


def average(row: list[float]) -> float:
    return sum(row) / len(row)


def nll(rows: Ragged, per: str) -> float:
    if per == "token":
        return -sum(map(sum, rows)) / sum(map(len, rows))
    return -mean([average(row) if per == "sequence" else sum(row) for row in rows])


def over_pairs(policy: dict[str, Any], value: Callable[[list[float], list[float]], float]) -> float:
    return mean([value(c, r) for c, r in zip(policy["chosen"], policy["rejected"], strict=True)])


def smoothed(z: float, e: float) -> float:
    return (1 - e) * softplus(-z) + e * softplus(z)


# SLiC-HF


@pytest.mark.parametrize("per", ["token", "sequence", "sum"])
def test_slic_hf_is_a_hinge_on_sums_and_an_nll_on_the_target(per: str) -> None:
    def loss(policy: dict[str, Any]) -> float:
        return over_pairs(policy, lambda c, r: max(0.0, 1.5 - sum(c) + sum(r))) + 0.3 * nll(policy["target"], per)

    found = [1.5 - sum(c) + sum(r) for c, r in zip(CHOSEN, REJECTED, strict=True)]
    assert min(found) < -0.1 < 0.1 < max(found)  # both sides of the hinge, none on it
    case = {"loss": "slic_hf", "hyper": {"delta": 1.5, "lambda": 0.3, "nll": per}}
    calibration = mean([max(0.0, one) for one in found])
    hold({**case, "policy": copied(**PAIRS, target=GOLD)}, loss, calibration=calibration, nll_loss=nll(GOLD, per))


def test_slic_hf_imitates_the_chosen_completion_where_there_is_no_target() -> None:
    def loss(policy: dict[str, Any]) -> float:
        return over_pairs(policy, lambda c, r: max(0.0, 1.0 - sum(c) + sum(r))) + 0.1 * nll(policy["chosen"], "sum")

    hold({"loss": "slic_hf", "policy": copied(**PAIRS)}, loss, nll_loss=nll(CHOSEN, "sum"))


def test_slic_hf_takes_the_chosen_completion_for_rows_without_a_target_among_others() -> None:
    groups = tiny.groups("pairs", 3)
    groups[1].completions.append(Completion([7, 8], "gold"))
    algorithm = tiny.algorithm("slic_hf")
    made = algorithm.collate(groups)
    assert [[one.role for one in group.completions] for group in made] == [["chosen", "rejected", "gold"]] * 3
    targets = [group.completions[2].ids for group in made]
    assert targets == [groups[0].completions[0].ids, [7, 8], groups[2].completions[0].ids]
    assert [len(group.completions) for group in groups] == [2, 3, 2]  # those of the data are left as they were
    assert algorithm.collate(groups[:1]) == groups[:1]


def test_the_slic_hinge_is_one_value_a_pair_where_pairs_are_as_many_as_tokens() -> None:
    """A (B,) hinge and a (B, T) regulariser broadcast to (B, B) without a word when B equals T."""
    square = [[-0.5, -1.0, -1.5], [-2.0, -0.1, -0.4], [-0.7, -0.8, -0.9]]
    case = {"loss": "slic_hf", "hyper": {"lambda": 0.0}, "policy": copied(chosen=square, rejected=square[::-1])}
    found = [max(0.0, 1.0 - sum(c) + sum(r)) for c, r in zip(square, square[::-1], strict=True)]
    assert run_case({"kind": "loss", "data": {}, **case})["loss"] == pytest.approx(mean(found))


# ORPO


def odds(row: list[float]) -> float:
    return average(row) - math.log1p(-math.exp(average(row)))


@pytest.mark.parametrize("per", ["token", "sequence", "sum"])
@pytest.mark.parametrize("with_prompt", [False, True])
def test_orpo(per: str, with_prompt: bool) -> None:
    def loss(policy: dict[str, Any]) -> float:
        rows = policy["chosen"]
        if with_prompt:
            rows = [[*prompt, *row] for prompt, row in zip(policy["chosen_prompt"], rows, strict=True)]
        return nll(rows, per) + 0.4 * over_pairs(policy, lambda c, r: softplus(odds(r) - odds(c)))

    policy = copied(**PAIRS, **({"chosen_prompt": PROMPT} if with_prompt else {}))
    ratios = [odds(c) - odds(r) for c, r in zip(CHOSEN, REJECTED, strict=True)]
    hold(
        {"loss": "orpo", "hyper": {"beta": 0.4, "nll": per, "nll_include_prompt": with_prompt}, "policy": policy},
        loss,
        log_odds_chosen=mean(ratios),
        log_odds_ratio=mean([-softplus(-one) for one in ratios]),
        **{
            "rewards/chosen": 0.4 * mean([average(row) for row in CHOSEN]),
            "loss/nll": loss(policy) - 0.4 * mean([softplus(-one) for one in ratios]),
        },
    )


def test_orpo_stays_finite_where_a_completion_is_known_by_heart() -> None:
    """log1p(-exp(A)) makes infinite odds and a gradient of NaN as A nears 0."""
    for chosen, rejected in (([0.0, 0.0], [-2.0]), ([-2.0], [0.0]), ([0.0], [0.0]), ([-1e-9], [-1e-9, 0.0])):
        case = {
            "loss": "orpo",
            "kind": "loss",
            "data": {},
            "hyper": {},
            "policy": {"chosen": [chosen], "rejected": [rejected]},
        }
        for dtype in (torch.float32, torch.float64):
            found = run_case(case, dtype=dtype)
            numbers = [found["loss"], *found["grad"]["chosen"][0], *found["grad"]["rejected"][0]]
            assert all(map(math.isfinite, numbers)), (chosen, rejected, dtype)
            assert found["grad"]["chosen"][0][0] < 0 < found["grad"]["rejected"][0][0] or chosen == rejected


def test_the_odds_keep_their_digits_close_to_certainty() -> None:
    likely, ratio = torch.tensor([-1e-6]), torch.tensor([-1.0])
    expected = math.log(math.exp(-1e-6) / -math.expm1(-1e-6)) - math.log(math.exp(-1.0) / -math.expm1(-1.0))
    assert float(log_odds_ratio(likely, ratio)) == pytest.approx(expected, rel=1e-6)


def test_the_odds_of_orpo_are_of_averages_and_not_of_sums() -> None:
    """With sums p underflows, and the odds ratio is the difference of the sums."""
    case = {"loss": "orpo", "kind": "loss", "data": {}, "hyper": {}}
    long, short = [-1.0] * 60, [-1.0] * 3
    found = run_case({**case, "policy": {"chosen": [long], "rejected": [short]}})
    assert found["metrics"]["log_odds_chosen"] == pytest.approx(0.0, abs=1e-12)


def test_orpo_with_prompt_reads_every_prompt_token_but_the_first() -> None:
    algorithm = tiny.algorithm("orpo", nll_include_prompt=True)
    groups = algorithm.collate(tiny.groups("pairs", 4))
    groups[2].prompt_ids = groups[2].prompt_ids[:1]  # nothing of it can be predicted
    groups[2].completions[2].ids = []
    model = tiny.model()
    batch = Batch.of(groups)
    shares = reduce(algorithm.loss(batch, score(model, batch), None), batch, counts(batch))[1]
    tokens: list[float] = []
    for group in groups:
        ids = torch.tensor([[*group.prompt_ids, *group.completions[0].ids]])
        tokens += model(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None]).flatten().tolist()
    assert float(shares["nll"].detach()) == pytest.approx(-mean(tokens), rel=1e-5)
    assert tiny.algorithm("orpo").collate(groups) == groups


# CPO and its relatives


@pytest.mark.parametrize("per", ["token", "sequence", "sum"])
@pytest.mark.parametrize("e", [0.0, 0.2])
def test_cpo(per: str, e: float) -> None:
    def loss(policy: dict[str, Any]) -> float:
        prefer = over_pairs(policy, lambda c, r: smoothed(0.3 * (sum(c) - sum(r)), e))
        return prefer + 0.7 * nll(policy["chosen"], per)

    hyper = {"beta": 0.3, "alpha": 0.7, "nll": per, "label_smoothing": e}
    hold({"loss": "cpo", "hyper": hyper, "policy": copied(**PAIRS)}, loss, nll_loss=nll(CHOSEN, per))


def test_cpo_is_dpo_with_a_uniform_reference() -> None:
    policy = copied(**PAIRS)
    zeros = {f"ref_{role}": [[0.0] * len(row) for row in rows] for role, rows in policy.items()}
    dpo = run_case({"loss": "dpo", "kind": "loss", "hyper": {"beta": 0.1}, "policy": policy, "data": zeros})
    hyper = {"beta": 0.1, "alpha": 0.0, "nll": "token"}
    cpo = run_case({"loss": "cpo", "kind": "loss", "hyper": hyper, "policy": policy, "data": {}})
    assert cpo["loss"] == pytest.approx(dpo["loss"])
    assert cpo["metrics"]["rewards/margins"] == pytest.approx(dpo["metrics"]["rewards/margins"])


@pytest.mark.parametrize("per", ["token", "sequence", "sum"])
@pytest.mark.parametrize("e", [0.0, 0.1])
def test_cpo_simpo(per: str, e: float) -> None:
    def loss(policy: dict[str, Any]) -> float:
        prefer = over_pairs(policy, lambda c, r: smoothed(2.0 * (average(c) - average(r)) - 0.8, e))
        return prefer + 0.25 * nll(policy["chosen"], per)

    hyper = {"beta": 2.0, "gamma": 0.8, "alpha": 0.25, "nll": per, "label_smoothing": e}
    hold({"loss": "cpo_simpo", "hyper": hyper, "policy": copied(**PAIRS)}, loss)


def test_simpo_adds_no_nll_that_nobody_asked_for() -> None:
    """Elsewhere "simpo" is CPO-SimPO, with an NLL of weight 1 that drowns the preference."""
    case = {"kind": "loss", "policy": copied(**PAIRS), "data": {}}
    simpo = run_case({**case, "loss": "simpo", "hyper": {"beta": 2.0, "gamma": 0.5}})
    without = run_case({**case, "loss": "cpo_simpo", "hyper": {"beta": 2.0, "gamma": 0.5, "alpha": 0.0}})
    assert simpo["loss"] == pytest.approx(without["loss"], abs=1e-14)
    added = run_case({**case, "loss": "cpo_simpo", "hyper": {"beta": 2.0, "gamma": 0.5}})
    assert added["loss"] == pytest.approx(simpo["loss"] + nll(CHOSEN, "token"))


def penalty(c: list[float], r: list[float], c1: float, c2: float) -> float:
    return min(1.0, c1 * math.exp(c2 * abs(average(c) - average(r))) - 1)


@pytest.mark.parametrize(("c1", "c2"), [(0.9, 0.4), (0.9, 0.9), (1.2, 0.4), (2.5, 0.1)])
def test_arpo_lets_the_gradient_through_its_penalty(c1: float, c2: float) -> None:
    def loss(policy: dict[str, Any]) -> float:
        prefer = over_pairs(policy, lambda c, r: softplus(-0.2 * (sum(c) - penalty(c, r, c1, c2) * sum(r))))
        return prefer + 0.5 * nll(policy["chosen"], "sequence")

    found = [penalty(c, r, c1, c2) for c, r in zip(CHOSEN, REJECTED, strict=True)]
    if c2 == 0.9:
        assert max(found) == 1.0 > min(found)
    hyper = {"beta": 0.2, "alpha": 0.5, "c1": c1, "c2": c2, "nll": "sequence"}
    hold({"loss": "arpo", "hyper": hyper, "policy": copied(**PAIRS)}, loss, penalty=mean(found))


def test_the_penalty_of_arpo_is_below_0_between_equals_and_1_at_most() -> None:
    equal, far = torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -900.0])
    far.requires_grad_()
    found = rejection_penalty(equal, far, 0.9, 0.4)
    assert found.tolist() == pytest.approx([-0.1, 1.0], abs=1e-6)
    found.sum().backward()
    assert far.grad is not None
    assert far.grad.tolist() == [0.0, 0.0]  # the exponential of 360 overflows: its slope times 0 would be NaN


def test_arpo_and_cpo_are_two_methods_that_agree_where_nothing_is_spared() -> None:
    """The authors' file for CPO holds ARPO by now."""
    case = {"kind": "loss", "policy": copied(**PAIRS), "data": {}}
    cpo = run_case({**case, "loss": "cpo", "hyper": {"beta": 0.1}})
    arpo = run_case({**case, "loss": "arpo", "hyper": {"beta": 0.1}})
    unspared = run_case({**case, "loss": "arpo", "hyper": {"beta": 0.1, "c1": 2.0}})
    assert unspared["loss"] == pytest.approx(cpo["loss"])
    assert abs(arpo["loss"] - cpo["loss"]) > 0.01


# AlphaPO


def bent(row: list[float], beta: float, alpha: float) -> float:
    return beta * average(row) if alpha == 0 else beta * (1 - math.exp(-alpha * average(row))) / alpha


@pytest.mark.parametrize("alpha", [0.25, -0.5, 0.0, 2.0])
def test_alphapo(alpha: float) -> None:
    def loss(policy: dict[str, Any]) -> float:
        return over_pairs(policy, lambda c, r: softplus(0.6 - bent(c, 2.0, alpha) + bent(r, 2.0, alpha)))

    hyper = {"alpha": alpha, "beta": 2.0, "gamma": 0.6}
    chosen = mean([bent(row, 2.0, alpha) for row in CHOSEN])
    hold({"loss": "alphapo", "hyper": hyper, "policy": copied(**PAIRS)}, loss, **{"rewards/chosen": chosen})


def test_alphapo_comes_from_simpo() -> None:
    case = {"kind": "loss", "policy": copied(**PAIRS), "data": {}}
    simpo = run_case({**case, "loss": "simpo", "hyper": {"beta": 2.5, "gamma": 0.1}})
    straight = run_case({**case, "loss": "alphapo", "hyper": {"beta": 2.5, "gamma": 0.1, "alpha": 0.0}})
    nearly = run_case({**case, "loss": "alphapo", "hyper": {"beta": 2.5, "gamma": 0.1, "alpha": 1e-9}})
    assert straight["loss"] == pytest.approx(simpo["loss"], abs=1e-14)
    assert nearly["loss"] == pytest.approx(simpo["loss"], abs=1e-7)


def test_the_reward_of_alphapo_is_bounded_by_the_number_format_alone() -> None:
    average_logps = torch.tensor([-300.0, -500.0], dtype=torch.float64)
    found = alphapo_reward(average_logps, 1.0, 0.25)
    assert found.tolist() == pytest.approx([-4 * math.expm1(75.0), -4 * math.expm1(125.0)])
    assert alphapo_reward(average_logps.float(), 10.0, 0.25).isfinite().all()


# TPO


@pytest.mark.parametrize("per", ["token", "sequence", "sum"])
@pytest.mark.parametrize("normalized", [False, True])
def test_tpo(per: str, normalized: bool) -> None:
    read = average if normalized else sum

    def loss(policy: dict[str, Any]) -> float:
        prefer = over_pairs(policy, lambda c, r: softplus(0.5 - 0.8 * (read(c) - read(r))))
        return prefer + 0.3 * nll(policy["gold"], per)

    hyper = {"alpha": 0.3, "beta": 0.8, "gamma": 0.5, "length_normalize": normalized, "nll": per}
    hold({"loss": "tpo", "hyper": hyper, "policy": copied(**PAIRS, gold=GOLD)}, loss, nll_loss=nll(GOLD, per))


def test_tpo_is_cpo_where_the_gold_completion_is_the_chosen_one() -> None:
    case = {"kind": "loss", "data": {}, "hyper": {"beta": 0.1, "alpha": 0.4, "nll": "token"}}
    tpo = run_case({**case, "loss": "tpo", "policy": copied(**PAIRS, gold=CHOSEN)})
    cpo = run_case({**case, "loss": "cpo", "policy": copied(**PAIRS)})
    assert tpo["loss"] == pytest.approx(cpo["loss"], abs=1e-14)


def test_tpo_without_gold_completions_is_refused_with_the_way_out() -> None:
    groups = tiny.groups("pairs", 2)
    with pytest.raises(DataError, match=r"row 0 has no gold completion.*--algo cpo"):
        tiny.algorithm("tpo").collate(groups)
    groups[0].completions.append(Completion([5], "gold"))
    with pytest.raises(DataError, match="row 1"):
        tiny.algorithm("tpo").collate(groups)
    without = tiny.algorithm("tpo", nll_weight=0.0).collate(groups)
    assert all([one.role for one in group.completions] == ["chosen", "rejected"] for group in without)


# What all of them must not do

METHODS = ["slic_hf", "orpo", "cpo", "cpo_simpo", "arpo", "alphapo", "tpo"]


@pytest.mark.parametrize("name", METHODS)
def test_losses_and_gradients_are_finite_far_out(name: str) -> None:
    for chosen, rejected in (([-700.0], [-0.001]), ([-0.001], [-700.0]), ([-300.0, -400.0], [-2e-9, -800.0])):
        policy = {"chosen": [chosen], "rejected": [rejected], **({"gold": [[-500.0]]} if name == "tpo" else {})}
        found = run_case({"loss": name, "kind": "loss", "hyper": {}, "policy": policy, "data": {}}, dtype=torch.float32)
        numbers = [found["loss"], *(x for rows in found["grad"].values() for row in rows for x in row)]
        assert all(map(math.isfinite, numbers)), (chosen, rejected)


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_of_a_step_does_not_depend_on_its_micro_batches(name: str) -> None:
    """A token mean inside each micro-batch depends on how a step is accumulated: 4.2517 in one, 4.2663 in four."""
    algorithm = tiny.algorithm(name, **({"nll": "token"} if name == "slic_hf" else {}))
    groups = tiny.groups("pairs", 6)
    for number, group in enumerate(groups if name == "tpo" else ()):
        group.completions.append(Completion([1] * (1 + number), "gold"))
    groups = algorithm.collate(groups)
    model = tiny.model()
    whole = Batch.of(groups)
    totals = counts(whole)

    def part(some: list[Group]) -> float:
        batch = Batch.of(some)
        return float(reduce(algorithm.loss(batch, score(model, batch), None), batch, totals)[0].detach())

    pieces = [part(groups[:1]), part(groups[1:3]), part(groups[3:])]
    assert sum(pieces) == pytest.approx(part(groups), rel=1e-5)


@pytest.mark.parametrize("name", ["cpo", "orpo", "slic_hf", "cpo_simpo"])
def test_a_token_whose_id_is_0_counts_in_the_nll(name: str) -> None:
    """An NLL that leaves out the padding's id leaves out real tokens with it, and the end of text with a shared id."""
    algorithm = tiny.algorithm(name)
    groups = [Group([1], [Completion([0, 3, 0], "chosen"), Completion([2], "rejected")], pairs=[(0, 1)])]
    batch = Batch.of(groups)
    logps = torch.tensor([[-1.0, -2.0, -4.0], [-1.0, 0.0, 0.0]], requires_grad=True)
    reduce(algorithm.loss(batch, Scores(logps, batch.mask), None), batch, counts(batch))[0].backward()
    assert logps.grad is not None
    assert (logps.grad[0] < 0).all()


@pytest.mark.parametrize("name", ["slic_hf", "orpo", "cpo", "cpo_simpo", "alphapo", "tpo"])
def test_the_gradient_raises_the_chosen_and_lowers_the_rejected(name: str) -> None:
    policy = copied(**PAIRS, **({"gold": GOLD} if name == "tpo" else {}))
    grad = run_case({"loss": name, "kind": "loss", "hyper": {}, "policy": policy, "data": {}})["grad"]
    assert all(slope <= 0 for row in grad["chosen"] for slope in row)
    assert all(slope >= 0 for row in grad["rejected"] for slope in row)
    assert min(slope for row in grad["chosen"] for slope in row) < 0
    assert max(slope for row in grad["rejected"] for slope in row) > 0


def test_the_slope_of_cpo_is_that_of_its_equation() -> None:
    hyper = {"beta": 0.5, "alpha": 0.0, "nll": "token"}
    grad = run_case({"loss": "cpo", "kind": "loss", "hyper": hyper, "policy": copied(**PAIRS), "data": {}})["grad"]
    expected = [0.5 * sigmoid(-0.5 * (sum(c) - sum(r))) / 5 for c, r in zip(CHOSEN, REJECTED, strict=True)]
    assert [row[0] for row in grad["rejected"]] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("slic_hf", {"delta": -1.0}, "delta must not be negative"),
        ("slic_hf", {"lambda_": -1.0}, "lambda_ must not be negative"),
        ("slic_hf", {"nll": "mean"}, "nll must be one of token, sequence, sum, not 'mean'"),
        ("orpo", {"lambda_": -0.1}, "lambda_ must not be negative"),
        ("orpo", {"nll": "mean"}, "nll must be one of"),
        ("cpo", {"beta": 0.0}, "beta must be positive"),
        ("cpo", {"nll_weight": -1.0}, "nll_weight must not be negative"),
        ("cpo", {"nll": ""}, "nll must be one of"),
        ("cpo", {"label_smoothing": 0.5}, "label_smoothing must be in"),
        ("cpo_simpo", {"beta": -2.0}, "beta must be positive"),
        ("cpo_simpo", {"nll_weight": -1.0}, "nll_weight must not be negative"),
        ("cpo_simpo", {"nll": ""}, "nll must be one of"),
        ("cpo_simpo", {"label_smoothing": -0.1}, "label_smoothing must be in"),
        ("arpo", {"beta": 0.0}, "beta must be positive"),
        ("arpo", {"nll_weight": -1.0}, "nll_weight must not be negative"),
        ("arpo", {"nll": ""}, "nll must be one of"),
        ("arpo", {"c1": 0.0}, "c1 must be positive"),
        ("arpo", {"c2": -1.0}, "c2 must not be negative"),
        ("alphapo", {"beta": 0.0}, "beta must be positive"),
        ("tpo", {"beta": 0.0}, "beta must be positive"),
        ("tpo", {"nll_weight": -1.0}, "nll_weight must not be negative"),
        ("tpo", {"nll": ""}, "nll must be one of"),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        tiny.algorithm(name, **wrong)
