"""Methods that learn from samples as they are, in the loop: reuse, micro-batches, and rewards that go up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.zoo.byhand import mean
from tests.zoo.rewarded import METHODS, logs
from xpo import Batch, Scores
from xpo.train.experience import together

ADAM = {"learning_rate": 1e-3, "max_steps": -1, "num_train_epochs": 1, "adam_epsilon": 1e-4}


@pytest.mark.parametrize(("name", "key"), [("reinforce", "ratio"), ("grpo", "ratio"), ("ppo", "val/ratio")])
def test_the_first_ratio_is_1_and_that_of_a_rollout_used_again_is_not(tmp_path: Path, name: str, key: str) -> None:
    ratios = logs(tiny.fit(name, tmp_path, iterations=3, max_steps=6), key)
    assert len(ratios) == 6
    assert ratios[0] == pytest.approx(1.0, abs=1e-4)
    assert ratios[3] == pytest.approx(1.0, abs=1e-4)  # a fresh rollout
    assert all(abs(ratio - 1.0) > 1e-4 for ratio in (*ratios[1:3], *ratios[4:]))


@pytest.mark.parametrize("name", METHODS)
def test_the_split_into_micro_batches_changes_nothing(tmp_path: Path, name: str) -> None:
    """11 prompts in steps of 4, the last of 3, each rollout used twice."""
    runs = []
    for size, accumulation in ((4, 1), (1, 4)):
        split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        rows = tiny.groups("prompts", 11)
        runs.append(tiny.fit(name, tmp_path / str(size), train=rows, iterations=2, samples=3, **ADAM, **split))
    whole, split_up = runs
    assert len(whole.losses) == 6
    start = tiny.model().state_dict()
    assert max(float((weight - start[key]).abs().max()) for key, weight in whole.weights.items()) > 1e-3
    assert whole.losses == pytest.approx(split_up.losses, abs=1e-5)
    assert whole.distance(split_up) < 1e-5


@pytest.mark.parametrize("name", ["reinforce", "grpo", "raft"])
def test_rewards_go_up(tmp_path: Path, name: str) -> None:
    run = tiny.fit(name, tmp_path, train=tiny.groups("prompts", 8), max_steps=8, learning_rate=5e-3)
    rewards = logs(run, "reward")
    assert mean(rewards[-3:]) > mean(rewards[:3]) + 0.05


def test_values_of_parts_are_those_of_the_whole() -> None:
    groups = tiny.groups("labels", 5)
    whole, parts = Batch.of(groups), [Batch.of(groups[:2]), Batch.of(groups[2:])]
    pieces = [
        Scores(number + part.mask.float(), part.mask, values=10.0 * number + part.mask.float())
        for number, part in enumerate(parts)
    ]
    joined = together(whole, pieces)
    assert joined.values is not None
    assert joined.values[0, 0] == 1.0
    assert joined.values[2, 0] == 11.0
    width = parts[0].mask.shape[1]
    assert torch.equal(joined.values[:2, :width], pieces[0].values)
    assert together(whole, [Scores(piece.logps, piece.mask) for piece in pieces]).values is None
