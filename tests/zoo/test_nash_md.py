"""Nash-MD: its equation, its KL, and the mixture that it plays against."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests.zoo.byhand import hold, mean, near, ragged, sigmoid
from tests.zoo.compared import WINS, sums
from xpo import SettingError
from xpo.feedback.mixing import geometric_mixture
from xpo_zoo.rollouts.nash_md import kl_surrogate

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
