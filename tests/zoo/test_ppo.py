"""PPO: its equation, advantages from values, the coefficient that follows the KL, and its value model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import flat, hold, mean, near, ragged
from tests.zoo.rewarded import clipped, logs, numbers, sampled, say
from xpo import Batch, Completion, Group, SettingError
from xpo.api.math import clipped_surrogate, gae, whiten
from xpo.api.mixture import Imitation, Part
from xpo.testing import run_case

PPO = {
    "as it comes": {},
    "narrow": {"cliprange": 0.05, "cliprange_value": 0.05, "vf_coef": 0.5},
    "wide": {"cliprange": 0.3, "cliprange_value": 5.0, "vf_coef": 1.0},
    "ptx": {"ptx_coef": 27.8, "cliprange": 0.1},
}


@pytest.mark.parametrize("hyper", PPO.values(), ids=PPO)
def test_ppo(hyper: dict[str, Any]) -> None:
    # With these seeds no token sits on a kink of what is clipped, where differences are no gradient.
    logps = ragged(291, 5)
    values, returns, advantages = numbers(logps, 292), numbers(logps, 293, 2.0), numbers(logps, 294, 2.0)
    data = {
        "old_logps": near(logps, 295, 0.8),
        "old_values": near(values, 296, 0.9),
        "advantages": advantages,
        "returns": returns,
    }
    policy = {"logps": logps, "values": values, **({"ptx": ragged(37, 3)} if "ptx_coef" in hyper else {})}
    eps, eps_v = hyper.get("cliprange", 0.2), hyper.get("cliprange_value", 0.2)

    def of_policy(policy: Mapping[str, Any]) -> list[tuple[float, bool]]:
        rows = zip(flat(policy["logps"]), flat(data["old_logps"]), flat(advantages), strict=True)
        return [clipped(math.exp(p - o), a, eps, eps) for p, o, a in rows]

    def of_values(policy: Mapping[str, Any]) -> list[float]:
        rows = zip(flat(policy["values"]), flat(data["old_values"]), flat(returns), strict=True)
        return [0.5 * max((v - g) ** 2, (o + min(max(v - o, -eps_v), eps_v) - g) ** 2) for v, o, g in rows]

    def loss(policy: Mapping[str, Any]) -> float:
        value = mean([one for one, _ in of_policy(policy)]) + hyper.get("vf_coef", 0.1) * mean(of_values(policy))
        return value - hyper.get("ptx_coef", 0.0) * mean(flat(policy["ptx"])) if "ptx" in policy else value

    metrics = {
        "loss/policy_avg": mean([one for one, _ in of_policy(policy)]),
        "loss/value_avg": mean(of_values(policy)),
        "policy/clipfrac_avg": mean([float(outside) for _, outside in of_policy(policy)]),
        "val/ratio": mean([math.exp(a - b) for a, b in zip(flat(logps), flat(data["old_logps"]), strict=True)]),
    }
    assert 0 < metrics["policy/clipfrac_avg"] < 1
    if "ptx" in policy:
        metrics["replay/nll_loss"] = -mean(flat(policy["ptx"]))
    hold({"loss": "ppo", "hyper": hyper, "policy": policy, "data": data}, loss, **metrics)


EXPERIENCE = {
    "as it comes": {"kl_coef": 0.05, "gamma": 1.0, "lam": 0.95},
    "discounted": {"kl_coef": 0.3, "gamma": 0.9, "lam": 0.7, "missing_eos_penalty": 1.5},
    "whitened": {"kl_coef": 0.2, "gamma": 0.99, "lam": 0.9, "whiten_rewards": True},
    "no KL, no trust in values": {"kl_coef": 0.0, "gamma": 1.0, "lam": 1.0},
    "all trust in values": {"kl_coef": 0.1, "gamma": 0.8, "lam": 0.0},
}


def moments(values: list[float]) -> tuple[float, float]:
    return mean(values), sum((value - mean(values)) ** 2 for value in values) / (len(values) - 1)


@pytest.mark.parametrize("hyper", EXPERIENCE.values(), ids=EXPERIENCE)
def test_the_experience_of_ppo(hyper: dict[str, Any]) -> None:
    """Advantages as the sum over everything that follows (1506.02438, eq. 16), not as the recursion."""
    logps = ragged(41, 5)
    ref, values = near(logps, 42, 1.0), numbers(logps, 43)
    scores, ended = [0.7, -1.2, 0.1, 2.0, -0.4], [True, False, True, True, False]
    data = {"logps": logps, "ref_logps": ref, "values": values, "scores": scores, "has_eos": ended}
    found = run_case({"loss": "ppo_advantages", "kind": "function", "hyper": hyper, "data": data})["outputs"]

    gamma, lam = hyper["gamma"], hyper["lam"]
    rewards = [[-hyper["kl_coef"] * (p - r) for p, r in zip(*row, strict=True)] for row in zip(logps, ref, strict=True)]
    for row, score, end in zip(rewards, scores, ended, strict=True):
        row[-1] += score - (0.0 if end else hyper.get("missing_eos_penalty", 0.0))
    if hyper.get("whiten_rewards"):
        middle, variance = moments(flat(rewards))
        rewards = [[(r - middle) / math.sqrt(variance + 1e-8) + middle for r in row] for row in rewards]
    advantages = []
    for row, value in zip(rewards, values, strict=True):
        deltas = [r + gamma * after - v for r, v, after in zip(row, value, [*value[1:], 0.0], strict=True)]
        advantages.append([sum((gamma * lam) ** k * d for k, d in enumerate(deltas[t:])) for t in range(len(deltas))])
    middle, variance = moments(flat(advantages))
    returns = [[a + v for a, v in zip(*row, strict=True)] for row in zip(advantages, values, strict=True)]
    expected = {
        "token_rewards": rewards,
        "advantages": advantages,
        "advantages_whitened": [[(a - middle) / math.sqrt(variance + 1e-8) for a in row] for row in advantages],
        "returns": returns,
    }
    for name, rows in expected.items():
        assert [len(row) for row in found[name]] == [len(row) for row in logps], name
        assert flat(found[name]) == pytest.approx(flat(rows), abs=1e-11), name
    assert mean(flat(found["advantages_whitened"])) == pytest.approx(0.0, abs=1e-12)
    apart = [g - a for g, a in zip(flat(found["returns"]), flat(found["advantages"]), strict=True)]
    assert apart == pytest.approx(flat(values), abs=1e-12)


def test_gae_at_its_ends() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.5, -1.0, 3.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    to_go = gae(rewards, values, mask, 1.0, 1.0) + values
    assert to_go.tolist() == [[7.0, 6.0, 4.0]]  # what is still to come
    assert gae(rewards, values, mask, 0.5, 0.0).tolist() == [[1 - 0.5 - 0.5, 2 + 1.5 + 1.0, 4 - 3.0]]  # one step ahead


def test_padding_takes_no_part_in_advantages_or_their_statistics() -> None:
    """The score is that of the last token, not of a place behind it, and nothing flows back from there."""
    short, long = [[-1.0, -2.0]], [[-1.0, -2.0], [-0.5] * 9]
    case: dict[str, Any] = {"loss": "ppo_advantages", "kind": "function", "hyper": {"kl_coef": 0.1}}

    def found(logps: list[list[float]]) -> dict[str, Any]:
        values = [[0.3] * len(row) for row in logps]
        data = {"logps": logps, "ref_logps": near(logps, 1), "values": values, "scores": [1.0] * len(logps)}
        return run_case({**case, "data": data})["outputs"]

    alone, beside = found(short), found(long)
    for name in ("token_rewards", "advantages", "returns"):
        assert alone[name][0] == pytest.approx(beside[name][0], abs=1e-12), name
    assert beside["token_rewards"][0][1] > 0.9


def test_advantages_are_whitened_with_the_statistics_of_all_ranks() -> None:
    whole = sampled([[1.0], [-2.0], [4.0], [0.5]], [[2], [5], [1], [3]])
    method = tiny.algorithm("ppo", kl_coef=0.0)
    expected = method.experience(whole, say(whole, values=0.3), None)["advantages_whitened"]
    tokens = expected[whole.mask]
    assert float(tokens.mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(tokens.std()) == pytest.approx(1.0, abs=1e-6)
    rank = Batch.of(whole.groups[:2], dtype=torch.float64)
    everything = gae(
        torch.tensor([[0.0, 1, 0, 0, 0], [0, 0, 0, 0, -2], [4, 0, 0, 0, 0], [0, 0, 0.5, 0, 0]], dtype=torch.float64),
        say(whole, values=0.3).values,  # type: ignore[arg-type]  # there are values
        whole.mask,
        1.0,
        0.95,
    )[whole.mask]
    sums = iter([everything.sum(), (everything - everything.mean()).square().sum()])
    count = torch.tensor(float(len(everything)), dtype=torch.float64)
    object.__setattr__(rank, "reduce", lambda _: torch.stack([next(sums), count]))
    found = method.experience(rank, say(rank, values=0.3), None)["advantages_whitened"]
    assert torch.allclose(found, expected[:2], atol=1e-12)


def test_whitening_keeps_the_mean_where_it_is_asked_to() -> None:
    values = torch.tensor([[1.0, 5.0, 99.0], [3.0, 99.0, 99.0]])
    mask = values < 99
    own = (values[mask].mean(), values[mask].std())
    shifted, kept = whiten(values, mask, own), whiten(values, mask, own, shift=False)
    assert shifted.tolist() == [[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert kept.tolist() == [[2.0, 4.0, 0.0], [3.0, 0.0, 0.0]]


def test_the_coefficient_follows_the_kl() -> None:
    """By a fifth over the horizon at most, either way."""
    hyper = {"init": 0.2, "target": 4.0, "horizon": 100.0, "n_steps": 10}
    observed = [4.0, 4.4, 400.0, 0.0]
    case = {"loss": "adaptive_kl", "kind": "function", "hyper": hyper, "data": {"observed_kl": observed}}
    factors = [1.0, 1.01, 1.02, 0.98]
    expected = [0.2 * math.prod(factors[: number + 1]) for number in range(4)]
    assert run_case(case)["outputs"]["coef"] == pytest.approx(expected)


def test_the_coefficient_is_kept_in_checkpoints_and_not_moved_by_evaluation() -> None:
    settings = {"kl_coef": 0.1, "kl_target": 2.0, "kl_horizon": 10.0}
    method, batch = tiny.algorithm("ppo", **settings), sampled([[1.0], [2.0]], [[4], [4]])
    here, there = say(batch, -1.0, values=0.0), say(batch, -2.0)
    with torch.no_grad():
        method.experience(batch, here, there)
    assert method.state_dict() == {"kl_coef": 0.1}
    first = method.experience(batch, here, there)  # a KL of 4 nats
    assert first["objective/non_score_reward"].tolist() == pytest.approx([-0.4, -0.4])
    assert method.state_dict()["kl_coef"] == pytest.approx(0.1 * (1 + 0.2 * 2 / 10))
    resumed = tiny.algorithm("ppo", **settings)
    resumed.load_state_dict(method.state_dict())
    again = resumed.experience(batch, here, there)
    assert again["objective/non_score_reward"].tolist() == pytest.approx([-0.416, -0.416])
    assert tiny.algorithm("ppo").state_dict() == {}


def test_updates_end_once_the_policy_has_gone_far_enough() -> None:
    """The mean of what the loss returns is above 0 when the KL to the sampling policy is above the target."""
    batch = sampled([[1.0], [2.0]], [[2], [4]])
    there, here = say(batch, -1.0, values=0.0), say(batch, -1.5, values=0.0)  # half a nat a token: a KL of 1/8
    for target, expected in ((0.1, 0.025), (0.2, -0.075)):
        method = tiny.algorithm("ppo", kl_coef=0.0, target_kl=target)
        batch.columns.update(method.experience(batch, there, None))
        batch.columns["old_logps"] = there.logps
        excess = method.loss(batch, here, None).excess
        assert excess is not None
        assert excess.tolist() == pytest.approx([expected] * 6)
        assert not excess.requires_grad
    assert tiny.algorithm("ppo", kl_coef=0.0).loss(batch, here, None).excess is None
    with pytest.raises(SettingError, match="target_kl must be positive"):
        tiny.algorithm("ppo", target_kl=0.0)


def test_without_a_kl_nobody_needs_a_reference() -> None:
    assert not tiny.algorithm("ppo", kl_coef=0.0).needs.reference
    assert not tiny.algorithm("grpo", beta=0.0).needs.reference
    assert not tiny.algorithm("reinforce", beta=0.0).needs.reference
    with pytest.raises(SettingError, match="kl_target"):
        tiny.algorithm("ppo", kl_coef=0.0, kl_target=6.0)


def test_the_surrogate_is_clipped_on_the_side_that_gains_alone() -> None:
    ratio = torch.tensor([0.5, 1.5, 0.5, 1.5], requires_grad=True)
    found = clipped_surrogate(ratio, torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2, 0.3)
    found.sum().backward()
    assert found.tolist() == pytest.approx([-0.5, -1.3, 0.8, 1.5])
    assert ratio.grad is not None
    assert ratio.grad.tolist() == [-1.0, 0.0, 0.0, 1.0]


def test_the_value_model_of_ppo_learns_and_rewards_go_up(tmp_path: Path) -> None:
    config = {"vf_coef": 1.0, "kl_coef": 0.01}
    rows = tiny.groups("prompts", 8)
    run = tiny.fit("ppo", tmp_path, train=rows, config=config, max_steps=20, iterations=2, learning_rate=3e-3)
    losses, advantages, rewards = (logs(run, key) for key in ("loss/value_avg", "val/advantage", "reward"))
    assert mean(losses[-4:]) < 0.7 * mean(losses[:2])
    assert abs(mean(advantages[-4:])) < 0.5 * abs(advantages[0])
    assert mean(rewards[-3:]) > mean(rewards[:3]) + 0.05


def test_ppo_learns_demonstrations_beside(tmp_path: Path) -> None:
    replay = [
        Group(group.prompt_ids, [Completion(group.completions[0].ids, "replay")])
        for group in tiny.groups("demonstrations", 11)
    ]
    made = tiny.trainer("ppo", tmp_path, helpers=[Part("replay", 27.8, Imitation(), replay=True)], beside=[replay])
    made.train()
    entry = next(entry for entry in made.state.log_history if "loss/replay" in entry)
    assert entry["loss/replay"] == pytest.approx(27.8 * entry["replay/nll_loss"], rel=1e-4)
    assert entry["val/ratio"] == pytest.approx(1.0, abs=1e-6)
    parts = [entry[f"loss/{name}"] for name in ("ppo/policy", "ppo/value", "replay")]
    assert sum(parts) == pytest.approx(entry["loss"], abs=1e-4)
