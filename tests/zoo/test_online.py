"""Methods that compare completions sampled while training: with each other, or with those of an opponent."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import flat, hold, mean, near, ragged, sigmoid, softplus
from xpo import Batch, Completion, DataError, Group, Needs, Opponent, Scores, SettingError
from xpo.feedback.mixing import geometric_mixture
from xpo.feedback.sampling import Sampling, sample
from xpo.plugins import load
from xpo.testing import run_case
from xpo.testing.fabricate import sampled
from xpo_zoo.rollouts.nash_md import kl_surrogate

#: loss_type -> loss of a margin.
LOSSES = {
    "sigmoid": lambda margin, beta: softplus(-beta * margin),
    "ipo": lambda margin, beta: (margin - 1 / (2 * beta)) ** 2,
}


def sums(rows: list[list[float]]) -> list[float]:
    return [sum(row) for row in rows]


def needs(name: str) -> Needs:
    return load().algorithm(name).cls.needs


def test_what_each_method_asks_of_the_loop() -> None:
    assert needs("nash_md").opponent == Opponent(1, mixture=0.5, trained=False)
    assert tiny.algorithm("nash_md", mixture_coef=0.125).needs.opponent == Opponent(1, mixture=0.125)
    assert needs("exploratory").opponent == Opponent(1, mixture=1.0, trained=True)
    assert {name: needs(name).wins for name in ("nash_md", "exploratory", "spo", "dno", "sppo", "online_dpo")} == {
        **dict.fromkeys(("nash_md", "exploratory", "spo", "dno"), "others"),
        "sppo": "all",
        "online_dpo": None,
    }
    assert tiny.algorithm("sppo", hard=True).needs == Needs(reference=True, samples=5, wins="all")
    # An importance ratio, or an expectation over samples of the policy itself, takes its whole distribution.
    assert {name for name in ("nash_md", "spo", "rloo", "grpo", "ppo", "reinforce") if not needs(name).ratios} == set()
    assert not any(needs(name).ratios for name in ("online_dpo", "exploratory", "raft"))
    assert not tiny.algorithm("spo", beta=0.0).needs.reference


# Nash-MD

WINS = [0.9, 0.2, 0.5, 0.7, 0.05]
NASH: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "strong tie": {"tau": 2.0, "kl": "sequence"},
    "reward to go": {"tau": 0.7, "kl": "reward_to_go"},
    "of a token alone": {"tau": 0.7, "kl": "token"},
    "without KL": {"tau": 0.0},
}


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("hyper", NASH.values(), ids=NASH)
def test_nash_md(hyper: dict[str, Any], reused: bool) -> None:
    logps = ragged(101, 5)
    ref, old = near(logps, 102, 1.5), near(logps, 103, 1.0)
    tau, kind = hyper.get("tau", 0.1), hyper.get("kl", "sequence")
    ratios = [[p - r for p, r in zip(*rows, strict=True)] for rows in zip(logps, ref, strict=True)]
    before = {  # what is frozen in front of each token
        "sequence": [[sum(row)] * len(row) for row in ratios],
        "reward_to_go": [[sum(row[t:]) for t in range(len(row))] for row in ratios],
        "token": ratios,
    }[kind]
    moved = [math.exp(a - b) if reused else 1.0 for a, b in zip(sums(logps), sums(old), strict=True)]
    assert not reused or min(moved) < 1 < max(moved)

    def loss(policy: Mapping[str, Any]) -> float:
        rows = zip(policy["logps"], before, WINS, moved, strict=True)
        return mean(
            [
                min(m, 1.0) * sum((-(p - 0.5) + tau * w) * t for w, t in zip(weights, row, strict=True))
                for row, weights, p, m in rows
            ]
        )

    data = {"p_win": WINS, "ref_logps": ref, **({"old_logps": old} if reused else {})}
    metrics = {"kl": mean(sums(ratios)), "rewards/probabilities": mean(WINS), "ratio": mean(moved)}
    hold({"loss": "nash_md", "hyper": hyper, "policy": {"logps": logps}, "data": data}, loss, **metrics)


def enumerated() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(9, 2) log-probs of all texts of two tokens, by a model and a reference, and the model's logits."""
    generator = torch.Generator().manual_seed(1)
    logits, other = (torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    logits.requires_grad_()

    def texts(rows: torch.Tensor) -> torch.Tensor:
        logps = rows.log_softmax(-1)  # of the first token, then of the second after each first
        return torch.stack(
            [torch.stack([logps[0, a], logps[1 + a, b]]) for a, b in itertools.product(range(3), range(3))]
        )

    return texts(logits), texts(other), logits


@pytest.mark.parametrize(("kind", "right"), [("sequence", True), ("reward_to_go", True), ("token", False)])
def test_the_kl_that_pulls_is_that_of_whole_completions(kind: str, right: bool) -> None:
    """A log-ratio of each token alone, as in TRL, is not the gradient of the KL of the sequence."""
    logps, ref, logits = enumerated()
    chances = logps.sum(-1).exp()
    (exact,) = torch.autograd.grad((chances * (logps - ref).sum(-1)).sum(), logits, retain_graph=True)
    expected = (chances.detach() * kl_surrogate(logps, ref, kind)).sum()
    (found,) = torch.autograd.grad(expected, logits)
    assert bool(torch.allclose(found, exact, atol=1e-12)) == right
    assert float(exact.abs().max()) > 0.1


@pytest.mark.parametrize("share", [0.0, 0.125, 0.5, 1.0])
def test_the_mixture_is_geometric_and_normalised(share: float) -> None:
    generator = torch.Generator().manual_seed(3)
    policy, ref = (torch.randn(2, 3, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    found = geometric_mixture(policy, ref, share)
    weights = policy.softmax(-1) ** (1 - share) * ref.softmax(-1) ** share
    assert torch.allclose(found.exp(), weights / weights.sum(-1, keepdim=True), atol=1e-12)
    before = geometric_mixture(policy / 0.7, ref / 0.7, share)
    assert torch.allclose(before, (found / 0.7).log_softmax(-1), atol=1e-12)


def test_a_token_that_one_model_never_says_leaves_the_mixture_finite_elsewhere() -> None:
    policy, never = torch.tensor([0.5, 1.0, -0.5]), torch.tensor([1.0, -math.inf, 0.0])
    assert torch.equal(geometric_mixture(policy, never, 0.0), policy.log_softmax(-1))
    assert geometric_mixture(never, policy, 1.0).isfinite().all()
    between = geometric_mixture(policy, never, 0.5)
    assert between.exp().tolist() == pytest.approx([sigmoid(1.0), 0.0, sigmoid(-1.0)])


def test_models_that_cannot_be_mixed_are_refused() -> None:
    with pytest.raises(SettingError, match=r"\[0, 1\], not 1.5"):
        geometric_mixture(torch.zeros(3), torch.zeros(3), 1.5)
    with pytest.raises(SettingError, match=r"one vocabulary .* 3 tokens .* 4"):
        geometric_mixture(torch.zeros(3), torch.zeros(4), 0.5)


# SPO


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


# Online DPO

#: The second is a tie, which the first sample wins; the third is one once the missing end is paid for.
REWARDS = ([0.5, -0.2, 2.0, 0.1], [0.1, -0.2, 1.0, 0.7])
ENDED = ([True, True, False, True], [True, True, True, False])
FIRST = {0.0: [True, True, True, False], 1.0: [True, True, True, True], 1.5: [True, True, False, True]}


@pytest.mark.parametrize("penalty", FIRST)
@pytest.mark.parametrize("hyper", [{}, {"beta": 0.7}, {"beta": 1.3, "loss_type": "ipo"}], ids=str)
def test_online_dpo(hyper: dict[str, Any], penalty: float) -> None:
    a, b = ragged(121, 4), ragged(122, 4)
    ref_a, ref_b = near(a, 123, 2.0), near(b, 124, 2.0)
    beta, of_margin = hyper.get("beta", 0.1), LOSSES[hyper.get("loss_type", "sigmoid")]

    def margins(policy: Mapping[str, Any]) -> list[float]:
        rows = zip(sums(policy["a"]), sums(ref_a), sums(policy["b"]), sums(ref_b), FIRST[penalty], strict=True)
        return [((p - r) - (q - s)) * (1 if first else -1) for p, r, q, s, first in rows]

    data = {"ref_a": ref_a, "ref_b": ref_b, **dict(zip(("reward_a", "reward_b"), REWARDS, strict=True))}
    data |= dict(zip(("eos_a", "eos_b"), ENDED, strict=True))
    policy = {"a": a, "b": b}
    hold(
        {
            "loss": "online_dpo",
            "hyper": {**hyper, "missing_eos_penalty": penalty},
            "policy": policy,
            "data": data,
        },
        lambda policy: mean([of_margin(margin, beta) for margin in margins(policy)]),
        first_wins=mean([float(first) for first in FIRST[penalty]]),
        **{"rewards/margins": mean([beta * margin for margin in margins(policy)]), "identical": 0.0},
    )


@pytest.mark.parametrize("loss_type", LOSSES)
def test_samples_that_are_the_same_pull_nothing_and_count(loss_type: str) -> None:
    """Without the exception a pair of equal texts has ln 2, or a square, and noise of two layouts as its pull."""
    case = {
        "loss": "online_dpo",
        "hyper": {"beta": 0.5, "loss_type": loss_type},
        "policy": {"a": [[-1.0, -2.0], [-1.0, -0.5], [-1.0]], "b": [[-1.0, -2.5], [-3.0], [-1.0, -1.0]]},
        "data": {
            "ref_a": [[-1.0, -1.0], [-1.0, -1.0], [-2.0]],
            "ref_b": [[-1.0, -1.0], [-1.0], [-2.0, -1.0]],
            "reward_a": [1.0, 1.0, 0.0],
            "reward_b": [0.0, 0.0, 0.0],
            "a_ids": [[3, 4], [3, 4], [0]],
            "b_ids": [[3, 4], [5], [0, 0]],  # a token of id 0 more is another text
        },
    }
    found = run_case(case)
    assert found["metrics"]["identical"] == pytest.approx(1 / 3)
    assert found["grad"]["a"][0] == found["grad"]["b"][0] == [0.0, 0.0]
    margins = [0.5 - -2.0, 1.0 - 1.0]
    assert found["loss"] == pytest.approx(sum(LOSSES[loss_type](margin, 0.5) for margin in margins) / 3)
    assert found["metrics"]["rewards/margins"] == pytest.approx(0.5 * mean(margins))


def test_of_more_samples_the_best_meets_the_worst() -> None:
    completions = [ragged(131, 4), ragged(132, 3)]
    ref = near(completions, 133, 2.0)
    rewards = [[0.1, 0.9, -1.0, 0.9], [0.3, 0.2, 0.2]]  # the first of the best, the last of the worst
    pairs = [(1, 2), (0, 2)]

    def loss(policy: Mapping[str, Any]) -> float:
        ratios = [
            [sum(p) - sum(r) for p, r in zip(*rows, strict=True)]
            for rows in zip(policy["completions"], ref, strict=True)
        ]
        return mean(
            [softplus(-0.1 * (row[best] - row[worst])) for row, (best, worst) in zip(ratios, pairs, strict=True)]
        )

    data = {"ref_completions": ref, "rewards": rewards}
    hold(
        {"loss": "online_dpo", "policy": {"completions": completions}, "data": data}, loss, first_wins=0.5
    )  # in the second prompt


def test_a_single_sample_has_nothing_to_be_compared_with() -> None:
    batch = Batch.of([Group([1], [Completion([2], score=1.0)])])
    said = Scores(torch.zeros(1, 1), batch.mask)
    with pytest.raises(SettingError, match="--num_generations 2"):
        tiny.algorithm("online_dpo").loss(batch, said, said)


# Exploratory


def exploring(wins: list[bool], **hyper: Any) -> dict[str, Any]:
    own, other = ragged(141, len(wins)), ragged(142, len(wins))
    return {
        "loss": "xpo",
        "hyper": hyper,
        "policy": {"policy_on_policy": own, "policy_on_ref": other},
        "data": {
            "policy_sample_wins": wins,
            "ref_on_policy": near(own, 143, 2.0),
            "ref_on_ref": near(other, 144, 2.0),
        },
    }


@pytest.mark.parametrize(
    "hyper", [{}, {"alpha": 0.3, "beta": 0.5}, {"alpha": 0.02, "beta": 2.0, "loss_type": "ipo"}], ids=str
)
def test_exploratory(hyper: dict[str, Any]) -> None:
    wins = [True, False, True, False]
    case = exploring(wins, **hyper)
    alpha, beta = hyper.get("alpha", 1e-5), hyper.get("beta", 0.1)
    of_margin = LOSSES[hyper.get("loss_type", "sigmoid")]
    refs = [sums(case["data"][key]) for key in ("ref_on_policy", "ref_on_ref")]

    def parts(policy: Mapping[str, Any]) -> tuple[float, float]:
        own, other = sums(policy["policy_on_policy"]), sums(policy["policy_on_ref"])
        margins = [
            (1 if win else -1) * ((p - r) - (q - s)) for p, q, r, s, win in zip(own, other, *refs, wins, strict=True)
        ]
        return mean([of_margin(margin, beta) for margin in margins]), alpha * mean(other)

    dpo, optimism = parts(case["policy"])
    hold(case, lambda policy: sum(parts(policy)), dpo=dpo, optimism=optimism, wins=0.5)


def test_without_its_bonus_it_is_online_dpo() -> None:
    wins = [True, False, False, True]
    case = exploring(wins, alpha=0.0, beta=0.4)
    found = run_case(case)
    other = run_case(
        {
            "loss": "online_dpo",
            "hyper": {"beta": 0.4},
            "policy": {"a": case["policy"]["policy_on_policy"], "b": case["policy"]["policy_on_ref"]},
            "data": {
                "ref_a": case["data"]["ref_on_policy"],
                "ref_b": case["data"]["ref_on_ref"],
                "reward_a": [float(win) for win in wins],
                "reward_b": [0.5] * 4,
            },
        }
    )
    assert found["loss"] == pytest.approx(other["loss"], abs=1e-12)
    assert flat(found["grad"]["policy_on_policy"]) == pytest.approx(flat(other["grad"]["a"]), abs=1e-12)
    assert flat(found["grad"]["policy_on_ref"]) == pytest.approx(flat(other["grad"]["b"]), abs=1e-12)


def test_the_bonus_makes_what_the_reference_said_less_likely() -> None:
    """Whether it was preferred or not: turned round, it would pay for repeating the reference."""
    wins = [True, False, True]
    plain, bold = (run_case(exploring(wins, alpha=alpha))["grad"] for alpha in (0.0, 0.6))
    assert bold["policy_on_policy"] == plain["policy_on_policy"]
    for less, more in zip(flat(plain["policy_on_ref"]), flat(bold["policy_on_ref"]), strict=True):
        assert more - less == pytest.approx(0.6 / 3)


def test_both_sides_may_be_without_an_end() -> None:
    """Taking the penalty off either side, the better of the two still wins, though both are below one half."""
    group = Group([1], [Completion([2], score=0.4), Completion([3], "opponent", score=0.2)])
    batch = Batch.of([group], dtype=torch.float64)
    policy, reference = (Scores(torch.tensor([[-1.0], [-1.0]]), batch.mask) for _ in range(2))
    assert tiny.algorithm("exploratory").loss(batch, policy, reference).metrics["wins"].tolist() == [1.0]


def test_several_samples_against_one_opponent_are_refused() -> None:
    group = Group([1], [Completion([2], score=0.4), Completion([3], score=0.4), Completion([4], "opponent", score=0.6)])
    batch = Batch.of([group])
    said = Scores(torch.zeros(3, 1), batch.mask)
    with pytest.raises(SettingError, match="--num_generations must be 1"):
        tiny.algorithm("exploratory").loss(batch, said, said)


# DNO


def pairs(seed: int = 151, count: int = 4) -> dict[str, Any]:
    chosen, rejected = ragged(seed, count), ragged(seed + 1, count)
    return {
        "policy": {"chosen": chosen, "rejected": rejected},
        "data": {"ref_chosen": near(chosen, seed + 2, 2.0), "ref_rejected": near(rejected, seed + 3, 2.0)},
    }


@pytest.mark.parametrize("eta", [0.1, 0.9])
@pytest.mark.parametrize("told", ["target", "scores"])
def test_dno(told: str, eta: float) -> None:
    case = pairs()
    better, worse, targets = [0.9, 0.2, 2.0, 0.5], [0.1, 0.7, -1.0, 0.5], [1.0, 0.3, 0.75, 0.0]
    if told == "scores":
        targets = [sigmoid(a - b) for a, b in zip(better, worse, strict=True)]
    own = {"target": targets} if told == "target" else {"score_chosen": better, "score_rejected": worse}
    refs = [sums(case["data"][key]) for key in ("ref_chosen", "ref_rejected")]

    def loss(policy: Mapping[str, Any]) -> float:
        rows = zip(sums(policy["chosen"]), sums(policy["rejected"]), *refs, targets, strict=True)
        z = [(eta * ((own - r) - (other - s)), p) for own, other, r, s, p in rows]
        return mean([p * softplus(-one) + (1 - p) * softplus(one) for one, p in z])

    case = {"loss": "dno", "hyper": {"eta": eta}, "policy": case["policy"], "data": {**case["data"], **own}}
    hold(case, loss, target=mean(targets))


def test_dno_with_certain_labels_is_dpo() -> None:
    case = pairs(161)
    found = run_case({"loss": "dno", "hyper": {"eta": 0.3}, **case, "data": {**case["data"], "target": [1.0] * 4}})
    other = run_case({"loss": "dpo", "hyper": {"beta": 0.3}, **case})
    assert found["loss"] == pytest.approx(other["loss"], abs=1e-12)
    assert flat(found["grad"]["rejected"]) == pytest.approx(flat(other["grad"]["rejected"]), abs=1e-12)


def pair(target: float | None = None, scores: tuple[float | None, float | None] = (None, None)) -> Group:
    completions = [
        Completion([2], role, score=score) for role, score in zip(("chosen", "rejected"), scores, strict=True)
    ]
    return Group([1], completions, [(0, 1)], columns={} if target is None else {"target": target})


def test_a_target_goes_before_scores_and_rows_may_differ() -> None:
    groups = [pair(0.9, (0.0, 1.0)), pair(scores=(3.0, 1.0)), pair(math.nan, (1.0, 1.0)), pair(0.25)]
    method = tiny.algorithm("dno")
    batch = Batch.of(method.collate(groups), dtype=torch.float64)
    said = Scores(-1.0 * batch.mask, batch.mask)
    found = method.loss(batch, said, said)
    assert found.metrics["target"].tolist() == pytest.approx([0.9, sigmoid(2.0), 0.5, 0.25])
    assert found.terms[0].values.tolist() == pytest.approx([math.log(2)] * 4)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (pair(), "score_chosen and score_rejected .* target .* --algo dpo"),
        (pair(scores=(0.5, None)), "score_chosen and score_rejected"),
        (pair(math.nan), "score_chosen and score_rejected"),
        (pair(1.5, (0.1, 0.2)), "target is 1.5; it must be a probability"),
    ],
)
def test_a_pair_that_says_nothing_of_how_much_better_is_refused(group: Group, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tiny.algorithm("dno").collate([pair(0.5), group])


# SPPO


def test_sppo_takes_the_win_rates_of_sampled_pairs_and_rows_without_any() -> None:
    """Their penalty comes off the log-odds, so that they stay between 0 and 1; off the rate, they would not."""
    method = tiny.algorithm("sppo", beta=0.5)
    groups = [pair(scores=(0.9, 0.1)), pair(scores=(0.5, 0.5)), Group([1])]
    assert method.collate(groups) == groups
    batch = Batch.of(groups, dtype=torch.float64)
    said = Scores(-1.0 * batch.mask, batch.mask)
    assert method.loss(batch, said, said).terms[0].values.tolist() == pytest.approx([2 * 0.8**2, 0.0])
    with pytest.raises(DataError, match="win rates between 0 and 1"):
        method.collate([pair(scores=(0.9, -0.4))])


# What the conformance kit makes up


def test_made_up_win_rates_are_those_of_the_loop() -> None:
    prompts = [Group([row], row=row) for row in range(3)]
    for group in sampled(prompts, Needs(samples=4, wins="others"), 1):
        assert [one.role for one in group.completions] == ["completion"] * 4
        assert mean([one.score or 0.0 for one in group.completions]) == pytest.approx(0.5)
    alike, others = (sampled(prompts, Needs(samples=4, wins=wins), 1) for wins in ("all", "others"))
    for one, other in zip(alike, others, strict=True):
        apart = [(a.score, b.score) for a, b in zip(one.completions, other.completions, strict=True)]
        assert all(a == pytest.approx((3 * (b or 0.0) + 0.5) / 4) for a, b in apart)
    trained = sampled(prompts, Needs(samples=1, opponent=Opponent(1, trained=True), wins="others"), 1)
    for group in trained:
        assert [one.role for one in group.completions] == ["completion", "opponent"]
        assert sum(one.score or 0.0 for one in group.completions) == pytest.approx(1.0)
    gone = sampled(prompts, Needs(samples=1, opponent=Opponent(1), wins="others"), 1)
    assert [[one.score for one in group.completions] for group in gone] == [
        [group.completions[0].score] for group in trained
    ]
    assert min(one.score or 0.0 for group in sampled(prompts, Needs(samples=1), 1) for one in group.completions) < 0


# In the loop

SAMPLES = {"nash_md": 1, "exploratory": 1, "spo": 4, "online_dpo": 2}


@pytest.mark.parametrize("name", ["nash_md", "exploratory"])
def test_the_split_into_micro_batches_changes_nothing(tmp_path: Path, name: str) -> None:
    """7 prompts in steps of 4, the last of 3, each rollout used twice."""
    runs = []
    for size, accumulation in ((4, 1), (1, 4)):
        split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        rows = tiny.groups("prompts", 7)
        epochs = {"max_steps": -1, "num_train_epochs": 1, "adam_epsilon": 1e-4}
        folder = tmp_path / str(size)
        runs.append(tiny.fit(name, folder, train=rows, iterations=2, samples=SAMPLES[name], **epochs, **split))
    whole, split_up = runs
    assert len(whole.losses) == 4
    start = tiny.model().state_dict()
    assert max(float((weight - start[key]).abs().max()) for key, weight in whole.weights.items()) > 1e-3
    assert whole.losses == pytest.approx(split_up.losses, abs=1e-5)
    assert whole.distance(split_up) < 1e-5


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_preferred_becomes_likelier(tmp_path: Path, name: str) -> None:
    """By the reward that decides who is preferred, on prompts that come again."""
    before, after = (
        mean(
            [
                reward
                for some in sample(model, tiny.tokenizer(), tiny.groups("prompts", 8), Sampling(16, 6, 1.0, 77))
                for reward in tiny.count_reward(completion_ids=[one.ids for one in some])
            ]
        )
        for model in (tiny.model(), trained(name, tmp_path))
    )
    assert after > before + 0.05


def trained(name: str, folder: Path) -> torch.nn.Module:
    # Win rates are so close to 1/2 that the KL of few samples would speak louder.
    louder = {"nash_md": {"tau": 0.01}, "spo": {"beta": 0.01}}.get(name)
    more = {"samples": SAMPLES[name] if louder is None else 8, "config": louder, "learning_rate": 4e-3}
    rows = {"train": tiny.groups("prompts", 8), "per_device_train_batch_size": 8}
    run = tiny.fit(name, folder, max_steps=9, **rows, **more)
    model = tiny.model()
    model.load_state_dict(run.weights)
    return model.eval()
