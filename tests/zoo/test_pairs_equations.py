"""Pair methods with a reference, held against their equations in plain Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.zoo.byhand import flat, hold, mean, sigmoid, softplus
from tests.zoo.referenced import GPO, kl, margins, pairs, ratios

Pairwise = Callable[[float, float], float]


def robust(z: float, e: float) -> float:
    return ((1 - e) * softplus(-z) - e * softplus(z)) / (1 - 2 * e)


def lrml(z: float, tau: float) -> float:
    return (1 - sigmoid(z / tau)) * softplus(-z) + sigmoid(z / tau) * math.exp(-z)


#: Losses that read a pair through its two log-ratios alone: the file's name, hyper-parameters, loss of R_w and R_l.
BY_RATIOS: dict[str, tuple[str, dict[str, Any], Pairwise]] = {
    "robust": ("robust_dpo", {"beta": 0.7, "label_smoothing": 0.2}, lambda w, r: robust(0.7 * (w - r), 0.2)),
    "ipo, sums": ("ipo", {"tau": 0.4, "length_normalize": False}, lambda w, r: (w - r - 1 / 0.8) ** 2),
    "hinge": ("hinge_norm", {"beta": 0.9}, lambda w, r: max(0.0, 1 - 0.9 * (w - r))),
    "dpop": ("dpop", {"beta": 0.3, "lambda": 4.0}, lambda w, r: softplus(-0.3 * (w - r - 4 * max(0.0, -w)))),
    "reverse KL": ("f_dpo", {"beta": 0.6, "divergence": "reverse_kl"}, lambda w, r: softplus(-0.6 * (w - r))),
    "forward KL": (
        "f_dpo",
        {"beta": 0.6, "divergence": "forward_kl"},
        lambda w, r: softplus(-0.6 * (-1 / math.exp(w) + 1 / math.exp(r))),
    ),
    "Jensen-Shannon": (
        "f_dpo",
        {"beta": 0.6, "divergence": "js"},
        lambda w, r: softplus(
            -0.6 * (math.log(2 * math.exp(w) / (1 + math.exp(w))) - math.log(2 * math.exp(r) / (1 + math.exp(r))))
        ),
    ),
    "alpha": (
        "f_dpo",
        {"beta": 0.6, "divergence": "alpha", "alpha": 0.3},
        lambda w, r: softplus(-0.6 * ((1 - math.exp(w) ** -0.3) / 0.3 - (1 - math.exp(r) ** -0.3) / 0.3)),
    ),
    "exo": ("exo_pref", {"beta": 0.8, "label_smoothing": 0.05}, lambda w, r: kl(sigmoid(0.8 * (w - r)), 0.95)),
    "nca": (
        "nca_pair",
        {"beta": 0.9},
        lambda w, r: (
            -math.log(sigmoid(0.9 * w)) - 0.5 * math.log(sigmoid(-0.9 * w)) - 0.5 * math.log(sigmoid(-0.9 * r))
        ),
    ),
    "apo zero": ("apo_zero", {"beta": 0.9}, lambda w, r: 1 - sigmoid(0.9 * w) + sigmoid(0.9 * r)),
    "apo down": ("apo_down", {"beta": 0.9}, lambda w, r: sigmoid(0.9 * w) + 1 - sigmoid(0.9 * (w - r))),
    "discopop": ("discopop", {"beta": 0.4, "tau": 0.2}, lambda w, r: lrml(0.4 * (w - r), 0.2)),
    "discopop, wide": ("discopop", {"beta": 0.4, "tau": 3.0}, lambda w, r: lrml(0.4 * (w - r), 3.0)),
    **{
        f"gpo, {f}": ("gpo", {"beta": 0.5, "f": f}, lambda w, r, cost=cost: cost(0.5 * (w - r)))
        for f, cost in GPO.items()
    },
}


@pytest.mark.parametrize("name", BY_RATIOS)
def test_losses_of_two_log_ratios(name: str) -> None:
    loss, hyper, equation = BY_RATIOS[name]
    case = pairs(loss, hyper, count=8, spread=2.0)
    assert min(margins(case)) < 0 < max(margins(case))

    def expected(policy: dict[str, Any]) -> float:
        return mean(
            [equation(*rs) for rs in zip(*(ratios(case, r, policy) for r in ("chosen", "rejected")), strict=True)]
        )

    hold(case, expected)


def average_margins(case: Mapping[str, Any], policy: Mapping[str, Any]) -> list[float]:
    found = []
    for role in ("chosen", "rejected"):
        found.append([r / len(y) for r, y in zip(ratios(case, role, policy), policy[role], strict=True)])
    return [a - b for a, b in zip(*found, strict=True)]


def test_ipo_averages_over_tokens() -> None:
    case = pairs("ipo", {"tau": 0.3, "length_normalize": True})
    rewards = [0.3 * r / len(y) for r, y in zip(ratios(case, "chosen"), case["policy"]["chosen"], strict=True)]
    hold(
        case,
        lambda policy: mean([(h - 1 / 0.6) ** 2 for h in average_margins(case, policy)]),
        **{"rewards/chosen": mean(rewards), "logps/rejected": mean([mean(y) for y in case["policy"]["rejected"]])},
    )


def test_dpo_on_averages() -> None:
    case = pairs("dpo_length_norm", {"beta": 5.0})
    hold(case, lambda policy: mean([softplus(-5 * h) for h in average_margins(case, policy)]))


@pytest.mark.parametrize("alpha", [0.0, 0.35, 1.0])
def test_ld_dpo(alpha: float) -> None:
    case = pairs("ld_dpo", {"beta": 0.5, "alpha": alpha}, count=8)
    assert {len(w) > len(r) for w, r in zip(*case["policy"].values(), strict=True)} == {True, False}

    def weighed(row: list[float], other: list[float]) -> float:
        shared = min(len(row), len(other))
        return sum(row[:shared]) + alpha * sum(row[shared:])

    def expected(policy: dict[str, Any]) -> float:
        both = {"policy": policy, "ref": {role: case["data"][f"ref_{role}"] for role in policy}}
        found = []
        for i in range(8):
            w, r = (
                weighed(both["policy"][a][i], policy[b][i]) - weighed(both["ref"][a][i], policy[b][i])
                for a, b in (("chosen", "rejected"), ("rejected", "chosen"))
            )
            found.append(softplus(-0.5 * (w - r)))
        return mean(found)

    hold(case, expected)


@pytest.mark.parametrize("alpha", [0.0, 0.07])
def test_r_dpo_adds_the_length_gap_inside_the_sigmoid(alpha: float) -> None:
    case = pairs("r_dpo", {"beta": 0.5, "alpha": alpha})
    gaps = [len(w) - len(r) for w, r in zip(*case["policy"].values(), strict=True)]
    hold(
        case,
        lambda policy: mean(
            [softplus(-(0.5 * d + alpha * n)) for d, n in zip(margins(case, policy), gaps, strict=True)]
        ),
        **{"length/chosen_longer": mean([float(n > 0) for n in gaps]), "length/regulariser": alpha * mean(gaps)},
    )


@pytest.mark.parametrize("e", [0.0, 0.15])
def test_aot_compares_sorted_margins(e: float) -> None:
    case = pairs("aot_paired", {"beta": 0.5, "label_smoothing": e}, spread=2.0)

    def expected(policy: dict[str, Any]) -> float:
        u = sorted(sum(w) - sum(r) for w, r in zip(policy["chosen"], policy["rejected"], strict=True))
        v = sorted(
            sum(w) - sum(r) for w, r in zip(case["data"]["ref_chosen"], case["data"]["ref_rejected"], strict=True)
        )
        zs = [0.5 * (a - b) for a, b in zip(u, v, strict=True)]
        return mean([(1 - e) * softplus(-z) + e * softplus(z) for z in zs])

    hold(case, expected)


@pytest.mark.parametrize("e", [0.0, 0.15])
def test_unpaired_aot_compares_sorted_log_ratios(e: float) -> None:
    case = pairs("aot_unpaired", {"beta": 0.5, "label_smoothing": e}, spread=2.0)

    def expected(policy: dict[str, Any]) -> float:
        both = [sorted(ratios(case, role, policy)) for role in ("chosen", "rejected")]
        zs = [0.5 * (a - b) for a, b in zip(*both, strict=True)]
        return mean([(1 - e) * softplus(-z) + e * softplus(z) for z in zs])

    hold(case, expected)


@pytest.mark.parametrize("per", ["token", "sequence", "sum"])
def test_rpo(per: str) -> None:
    case = pairs("rpo_nll", {"beta": 0.5, "alpha": 0.7, "nll": per})

    def likelihood(policy: dict[str, Any]) -> float:
        rows = policy["chosen"]
        if per == "token":
            return -mean(flat(rows))
        return -mean([sum(row) / (len(row) if per == "sequence" else 1) for row in rows])

    hold(
        case,
        lambda policy: mean([softplus(-0.5 * d) for d in margins(case, policy)]) + 0.7 * likelihood(policy),
        nll_loss=likelihood(case["policy"]),
        **{"loss/nll": 0.7 * likelihood(case["policy"])},
    )


SCORES = {"score_chosen": [2.0, 0.5, 1.5, -1.0, 3.0], "score_rejected": [1.0, 0.7, -2.5, -1.5, 0.0]}


@pytest.mark.parametrize("distance", ["squared", "bwd_kl", "fwd_kl"])
def test_reward_aware(distance: str) -> None:
    case = pairs("rpo_reward_aware", {"beta": 0.5, "eta": 0.8, "distance": distance}, **SCORES)
    targets = [0.8 * (a - b) for a, b in zip(*SCORES.values(), strict=True)]
    measure = {
        "squared": lambda z, t: (z - t) ** 2 / 2,
        "bwd_kl": lambda z, t: kl(sigmoid(z), sigmoid(t)),
        "fwd_kl": lambda z, t: kl(sigmoid(t), sigmoid(z)),
    }[distance]
    hold(
        case,
        lambda policy: mean([measure(0.5 * d, t) for d, t in zip(margins(case, policy), targets, strict=True)]),
        **{"rewards/target": mean(targets)},
    )


RATES = {"p_win": [0.8, 0.6, 0.5, 0.9, 1.0], "p_lose": [0.1, 0.4, 0.5, 0.3, 0.0]}


@pytest.mark.parametrize(("hard", "scale"), [(False, 0.5), (False, 1.0), (True, 0.5)])
def test_sppo(hard: bool, scale: float) -> None:
    case = pairs("sppo", {"beta": 0.2, "scale": scale, "hard": hard}, **({} if hard else RATES))
    rates = [[1.0] * 5, [0.0] * 5] if hard else [RATES["p_win"], RATES["p_lose"]]

    def expected(policy: dict[str, Any]) -> float:
        both = zip(ratios(case, "chosen", policy), ratios(case, "rejected", policy), *rates, strict=True)
        return mean([scale * ((w - (p - 0.5) / 0.2) ** 2 + (r - (q - 0.5) / 0.2) ** 2) for w, r, p, q in both])

    hold(case, expected, eta=5.0, **{"logratios/chosen": mean(ratios(case, "chosen"))})


def test_bco_moves_its_mean_before_it_uses_it() -> None:
    case = pairs("bco_pair", {"beta": 0.6}, delta_prev=0.3, delta_count_prev=4)
    both = [*ratios(case, "chosen"), *ratios(case, "rejected")]
    delta = (4 * 0.3 + 0.6 * mean(both)) / 5

    def expected(policy: dict[str, Any]) -> float:
        rows = zip(ratios(case, "chosen", policy), ratios(case, "rejected", policy), strict=True)
        return mean([softplus(delta - 0.6 * w) + softplus(0.6 * r - delta) for w, r in rows])

    hold(case, expected, delta=delta)


@pytest.mark.parametrize(
    ("previous", "keep"), [(-0.1, [1, 1, 1, 1, 1]), (0.4, [1, 0, 1, 0, 1]), (9.0, [0, 1, 1, 1, 1])]
)
def test_beta_dpo_given_what_is_kept(previous: float, keep: list[int]) -> None:
    hyper = {"beta": 0.5, "a": 0.6, "beta_min": 0.002, "momentum": 0.8}
    case = pairs("beta_dpo", hyper, gap_mean_prev=previous, keep=[bool(k) for k in keep])
    gaps = margins(case)
    running = 0.8 * previous + 0.2 * mean(gaps)
    kept = [i for i in range(5) if keep[i]]
    beta = max(0.002, 0.5 * (1 + 0.6 * (mean([gaps[i] for i in kept]) - running)))
    assert (beta == 0.002) == (previous == 9.0)
    hold(
        case,
        lambda policy: mean([softplus(-beta * margins(case, policy)[i]) for i in kept]),
        beta_used=beta,
        gap_mean=running,
        mask_count=len(kept),
        **{"rewards/chosen": 0.5 * mean(ratios(case, "chosen"))},  # of the setting, not of the beta used
    )
