"""Exploratory preference optimisation: its equation, and what its bonus does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import flat, hold, mean, near, ragged
from tests.zoo.compared import LOSSES, sums
from xpo import Batch, Completion, Group, Scores, SettingError
from xpo.testing import run_case


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
