"""Methods that compare completions sampled while training: with each other, or with those of an opponent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import mean
from xpo import Group, Needs, Opponent
from xpo.feedback.sampling import Sampling, sample
from xpo.plugins import load
from xpo.testing.fabricate import sampled


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
