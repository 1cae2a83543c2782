"""KTO's own parts: whom a prompt is mismatched with, the order of labels, and the reference point."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import tiny
from xpo import Batch, Completion, DataError, Group, Scores
from xpo.api.loss import counts, reduce
from xpo.cli import main
from xpo.data.order import StepSampler
from xpo.models.load import Policy
from xpo.models.scoring import score
from xpo_zoo.labels.kto import KTO, KTOConfig, kto_loss, mismatched


def derangement(prompts: Sequence[object], partners: Sequence[int]) -> bool:
    """Everybody's completion is borrowed once, and never for a prompt equal to its own."""
    return sorted(partners) == list(range(len(prompts))) and all(
        prompts[i] != prompts[partner] for i, partner in enumerate(partners)
    )


def test_distinct_prompts_are_shifted_by_one() -> None:
    assert mismatched("abcd") == [3, 0, 1, 2]


def test_equal_prompts_never_meet_where_that_can_be_avoided() -> None:
    rng = random.Random(0)
    refused = found = 0
    for _ in range(5000):
        prompts = [rng.randrange(rng.randint(1, 6)) for _ in range(rng.randint(1, 12))]
        possible = 2 * max(map(prompts.count, prompts)) <= len(prompts)
        if possible:
            assert derangement(prompts, mismatched(prompts)), prompts
            found += 1
        else:
            with pytest.raises(DataError, match="z0 zero"):
                mismatched(prompts)
            refused += 1
    assert found > 500
    assert refused > 500


def test_prompts_that_share_a_neighbour_or_wrap_around() -> None:
    for prompts in ("aabb", "abab", "abba", "aabc", "abca", "aaabbb", "aabbcc", "bcaadaa"):
        if 2 * max(map(prompts.count, prompts)) <= len(prompts):
            assert derangement(prompts, mismatched(prompts)), prompts


def test_the_mismatched_completions_are_borrowed_and_scored_without_gradient() -> None:
    groups = tiny.groups("labels", 5)
    made = tiny.algorithm("kto").collate(groups)
    assert [group.completions[0] for group in made] == [group.completions[0] for group in groups]
    for index, group in enumerate(made):
        own, borrowed = group.completions
        assert borrowed.ids == groups[index - 1].completions[0].ids
        assert (borrowed.role, borrowed.label, borrowed.trainable) == ("mismatched", None, False)
        assert own.trainable
    assert all(len(group.completions) == 1 for group in groups)  # those of the data are left as they were


def test_the_zero_reference_point_needs_no_mismatched_completions() -> None:
    algorithm = tiny.algorithm("kto", z0="zero")
    groups = tiny.groups("labels", 3)
    assert algorithm.collate(groups) == groups
    assert algorithm.needs.least == 1
    assert tiny.algorithm("kto").needs.least == 2


def make(logratios: Sequence[float], labels: Sequence[bool], mismatch: Sequence[float]) -> tuple[Batch, Scores, Scores]:
    """Groups of one completion and one mismatched one with given log-ratios."""
    groups = [
        Group([1 + i], [Completion([0], label=label), Completion([0], "mismatched", trainable=False)], row=i)
        for i, label in enumerate(labels)
    ]
    batch = Batch.of(groups, dtype=torch.float64)
    values = torch.tensor([[x] for pair in zip(logratios, mismatch, strict=True) for x in pair], dtype=torch.float64)
    return batch, Scores(values.requires_grad_(), batch.mask), Scores(torch.zeros_like(values), batch.mask)


def test_z0_is_clamped_after_the_mean() -> None:
    """The mean of (-3, 1) is negative, so z0 is 0; clamping each first would make it 0.5."""
    algorithm = KTO(KTOConfig(beta=1.0))
    batch, policy, reference = make([0.0, 0.0], [True, False], [-3.0, 1.0])
    loss = algorithm.loss(batch, policy, reference)
    assert float(loss.metrics["kl"]) == 0.0
    assert loss.terms[0].values.tolist() == pytest.approx([0.5, 0.5])
    batch, policy, reference = make([0.0, 0.0], [True, False], [-1.0, 3.0])
    assert float(algorithm.loss(batch, policy, reference).metrics["kl"]) == pytest.approx(1.0)


def test_z0_is_the_mean_over_all_ranks_and_idle_ones_do_not_count() -> None:
    algorithm = KTO(KTOConfig(beta=1.0))
    batch, policy, reference = make([0.0, 0.0], [True, False], [1.0, 3.0])
    other = torch.tensor([8.0, 2.0], dtype=torch.float64)  # another rank's sum and count
    shared = replace(batch, reduce=lambda mine: mine + other)
    assert float(algorithm.loss(shared, policy, reference).metrics["kl"]) == pytest.approx((4 + 8) / 4)
    idle = replace(batch, reduce=lambda mine: mine + other, idle=True)
    assert float(algorithm.loss(idle, policy, reference).metrics["kl"]) == pytest.approx(8 / 2)


def test_the_gradient_raises_the_desirable_lowers_the_undesirable_and_leaves_the_mismatched() -> None:
    algorithm = KTO(KTOConfig())
    batch, policy, reference = make([0.4, -0.2, 0.1], [True, False, False], [0.5, 0.2, 0.1])
    value, _ = reduce(algorithm.loss(batch, policy, reference), batch, counts(batch))
    value.backward()
    slopes = policy.logps.grad.flatten().tolist()
    assert slopes[0] < 0 < slopes[2]
    assert slopes[4] > 0
    assert slopes[1] == slopes[3] == slopes[5] == 0.0


def test_one_step_moves_the_completions_where_they_belong(tmp_path: Path) -> None:
    groups = tiny.groups("labels", 8)
    model = tiny.model()
    before = score(model, Batch.of(groups)).sum().detach()
    tiny.fit(
        "kto",
        tmp_path,
        policy=Policy(model, None, None, None),
        train=groups,
        max_steps=8,
        per_device_train_batch_size=8,
    )
    change = score(model, Batch.of(groups)).sum().detach() - before
    desirable = torch.tensor([bool(group.completions[0].label) for group in groups])
    assert float(change[desirable].mean()) > 0 > float(change[~desirable].mean())


def test_losses_keep_their_digits_far_from_the_reference_point() -> None:
    ratios = torch.tensor([80.0, -80.0])
    losses = kto_loss(ratios, torch.tensor([True, False]), torch.tensor(0.0), beta=1.0)
    assert (losses > 0).all()
    assert losses.tolist() == pytest.approx([1.8e-35, 1.8e-35], rel=0.01)


def test_the_order_mixes_labels_that_come_sorted() -> None:
    groups = [Group([i + 1], [Completion([1], label=i < 60)], row=i) for i in range(90)]
    sampler = StepSampler(groups, per_device=9, accumulation=1, world=1, rank=0, seed=0)
    order = sampler.order()
    for start in range(0, 90, 9):
        desirable = sum(groups[index].completions[0].label is True for index in order[start : start + 9])
        assert 5 <= desirable <= 7  # of nine, two thirds


def test_a_batch_of_one_is_refused_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["train", "--algo", "kto", "--per_device_train_batch_size", "1", "--output_dir", str(tmp_path / "o")])
    message = capsys.readouterr().err
    assert status == 2
    assert "--per_device_train_batch_size 2" in message
    assert not (tmp_path / "o").exists()


def test_a_step_of_one_prompt_is_refused_with_the_way_out(tmp_path: Path) -> None:
    groups = tiny.groups("labels", 8)
    for group in groups:
        group.prompt_ids = [1, 2]
    with pytest.raises(DataError, match="z0 zero"):
        tiny.fit("kto", tmp_path, train=groups)
    tiny.fit("kto", tmp_path, train=groups, config={"z0": "zero"})


def test_a_row_that_would_be_alone_is_left_out(tmp_path: Path) -> None:
    arguments = {"per_device_train_batch_size": 4, "max_steps": -1, "num_train_epochs": 1}
    assert tiny.fit("kto", tmp_path, train=tiny.groups("labels", 9), **arguments).trainer.left_out == 1
    assert tiny.fit("kto", tmp_path, train=tiny.groups("labels", 10), **arguments).trainer.left_out == 0
    zero = tiny.fit("kto", tmp_path, train=tiny.groups("labels", 9), config={"z0": "zero"}, **arguments)
    assert zero.trainer.left_out == 0
