"""The numbers that are watched in every run: by hand, over micro-batches and ranks, and in training."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.conftest import ROOT
from tests.train.madeup_runs import KEY
from xpo import Batch, Completion, Group, Scores
from xpo.train.diagnostics import MEANINGS, WAITING, Diagnostics
from xpo.train.survey import REMARKS


def scores(batch: Batch, sums: Sequence[float]) -> Scores:
    """Log-probabilities that add up to ``sums``, with gradient."""
    logps = torch.where(batch.mask, torch.tensor(sums)[:, None] / batch.lengths[:, None], 0.0)
    return Scores(logps.double().requires_grad_(), batch.mask)


def pair(chosen: int, rejected: int) -> Group:
    return Group([1], [Completion([2] * chosen, "chosen"), Completion([3] * rejected, "rejected")], [(0, 1)])


def watched(
    groups: Sequence[Group],
    sums: Sequence[float],
    reference: Sequence[float] | None = None,
    kind: Any = "pairs",
    weights: Sequence[float] | None = None,
    size: int = 10_000,
) -> dict[str, float]:
    """What is logged about groups that pass in micro-batches of ``size``, with a weight on the loss of each."""
    found, start = Diagnostics(), 0
    for first in range(0, len(groups), size):
        batch = Batch.of(groups[first : first + size])
        mine = slice(start, start + len(batch))
        start += len(batch)
        policy = scores(batch, sums[mine])
        found.watch(batch, policy, None if reference is None else scores(batch, reference[mine]).detach(), kind)
        if weights is not None:
            pulls = torch.tensor(weights[first : first + size], dtype=torch.double)[batch.group]
            (policy.sum() * pulls).sum().backward()
    return {name.removeprefix(KEY): value for name, value in found.read(1).items()}


def test_pairs_by_hand() -> None:
    lengths = [(2, 4), (6, 3), (5, 5), (1, 7), (8, 2), (3, 3), (4, 6), (9, 1)]
    rng = random.Random(0)
    new, old = ([rng.uniform(-30, -5) for _ in range(16)] for _ in range(2))
    found = watched([pair(*both) for both in lengths], new, old)
    gains = [a - b for a, b in zip(new, old, strict=True)]
    assert found["chosen_gain"] == pytest.approx(sum(gains[::2]) / 38)
    assert found["rejected_gain"] == pytest.approx(sum(gains[1::2]) / 31)
    gaps = torch.tensor([a - b for a, b in lengths]).double()
    margins = torch.tensor(gains[::2]) - torch.tensor(gains[1::2])
    assert found["length_gap"] == pytest.approx(7 / 8)
    assert found["length_bias"] == pytest.approx(float(torch.corrcoef(torch.stack([gaps, margins.double()]))[0, 1]))
    assert found.keys() == {"chosen_gain", "rejected_gain", "length_gap", "length_bias"}


def test_without_a_reference_it_is_the_log_probability_a_token() -> None:
    found = watched([pair(2, 4)] * 4, [-1.0, -8.0] * 4)
    assert found["chosen_logp"] == pytest.approx(-0.5)
    assert found["rejected_logp"] == pytest.approx(-2.0)
    groups = [pair(2, 4)]
    groups[0].completions[1].referenced = False  # what the reference never scored is no log-ratio
    assert watched(groups, [-1.0, -8.0], [0.0, 0.0])["chosen_logp"] == pytest.approx(-0.5)


def test_labels_are_compared_within_their_label() -> None:
    """Desirable completions are long and rewarded here: that the label explains, so it is no bias."""
    lengths = [(5 + n % 2, True) for n in range(8)] + [(1 + n % 2, False) for n in range(8)]
    groups = [Group([1], [Completion([2] * n, label=label)]) for n, label in lengths]
    old = [0.0] * 16
    none = watched(
        groups, [9.0 + n // 2 % 2 if label else n // 2 % 2 for n, (_, label) in enumerate(lengths)], old, "labels"
    )
    assert none["length_bias"] == pytest.approx(0.0, abs=1e-9)
    assert none["length_gap"] == pytest.approx(4.0)
    all_ = watched(groups, [n + 9.0 * label for n, label in lengths], old, "labels")
    assert all_["length_bias"] == pytest.approx(1.0)
    assert all_["chosen_gain"] == pytest.approx(sum(n + 9 for n, label in lengths if label) / 44)


def test_a_list_is_its_best_and_its_worst() -> None:
    completions = [Completion([2] * n, score=score) for n, score in ((3, 0.5), (2, 2.0), (7, 1.0), (6, 0.1))]
    found = watched([Group([1], completions)], [-3.0, -4.0, -7.0, -12.0], kind="lists")
    assert found == pytest.approx({"chosen_logp": -2.0, "rejected_logp": -2.0, "length_gap": -4.0})
    tied = [Completion([2], score=1.0), Completion([3], score=1.0)]
    assert watched([Group([1], tied)], [-1.0, -2.0], kind="lists") == {}


def test_rollouts_are_compared_with_those_of_their_prompt() -> None:
    """One prompt asks for long answers and is worth more: within each, the shorter one is rewarded."""
    groups = []
    for base in (1, 20):
        completions = [Completion([2] * (base + n), score=base - float(n)) for n in range(4)]
        groups.append(Group([1], completions))
    assert watched(groups, [-1.0] * 8, kind="rollouts") == pytest.approx({"length_bias": -1.0})


def test_what_is_to_be_retained_is_watched() -> None:
    groups = [Group([1], [Completion([2, 2], role)]) for role in ("forget", "retain")]
    found = watched(groups, [-9.0, -1.0], kind="forget", weights=[1.0, 50.0])
    assert found == pytest.approx({"retain_logp": -0.5, "effective_share": 1.0})


def test_a_reward_model_is_watched_by_its_rewards() -> None:
    batch = Batch.of([pair(1 + n % 4, 2) for n in range(8)])
    rewards = batch.lengths.double().requires_grad_()
    policy = Scores(torch.full(batch.mask.shape, math.nan), batch.mask, rewards=rewards)
    found = Diagnostics()
    found.watch(batch, policy, None, "pairs")
    (rewards[batch.chosen] - rewards[batch.rejected]).sum().backward()
    read = found.read(1)
    assert read[KEY + "length_bias"] == pytest.approx(1.0)
    assert read[KEY + "effective_share"] == pytest.approx(1.0)
    assert KEY + "chosen_logp" not in read


def test_the_effective_share_is_that_of_the_gradients() -> None:
    groups, sums = [pair(2, 2)] * 4, [-1.0] * 8
    for weights, share in (([1, 1, 1, 1], 1.0), ([1, 0, 0, 0], 0.25), ([3, 1, 0, 0], 16 / 40), ([0, 0, 0, 0], 0.0)):
        assert watched(groups, sums, weights=weights)["effective_share"] == pytest.approx(share)
    assert watched(groups, sums, weights=[math.inf, 1, 1, 1])["effective_share"] == pytest.approx(1.0)
    assert "effective_share" not in watched(groups, sums)


def test_what_hardly_differs_has_no_correlation() -> None:
    groups = [pair(1 + n, 2) for n in range(8)]
    same = [-1.0] * 16
    assert "length_bias" not in watched(groups, [value + 1e-6 * n for n, value in enumerate(same)], same)
    assert "length_bias" not in watched([pair(2, 2)] * 8, [float(n * n) for n in range(16)], same)
    assert "length_bias" not in watched(groups[:7], [float(n * n) for n in range(14)], same)


def test_what_stands_in_does_not_count() -> None:
    batch = Batch.of([pair(2, 3)], idle=True)
    found = Diagnostics()
    found.watch(batch, scores(batch, [-1.0, -2.0]), None, "pairs")
    assert found.read(1) == {}


def test_micro_batches_make_no_difference() -> None:
    rng = random.Random(1)
    groups = [pair(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(2 * WAITING + 3)]
    new, old = ([rng.uniform(-30, -5) for _ in range(2 * len(groups))] for _ in range(2))
    weights = [rng.random() for _ in groups]
    whole = watched(groups, new, old, weights=weights)
    assert len(whole) == 5
    for size in (1, 7):
        assert watched(groups, new, old, weights=weights, size=size) == pytest.approx(whole)


def test_ranks_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def both(mine: list[Any]) -> list[Any]:
        return mine * 2

    monkeypatch.setattr("xpo.train.ranks.gather_object", both)
    batch = Batch.of([pair(1 + n, 2) for n in range(4)])
    found = Diagnostics()
    found.watch(batch, scores(batch, [float(n * n) for n in range(8)]), None, "pairs")
    assert KEY + "length_bias" in found.read(2)  # four pairs on each of two ranks are enough
    assert found.read(1) == {}


@pytest.mark.parametrize(
    ("name", "kind"), [("dpo", "pairs"), ("simpo", "pairs"), ("kto", "labels"), ("rloo", "prompts")]
)
def test_a_run_logs_them_however_steps_are_split(tmp_path: Path, name: str, kind: str) -> None:
    logs = []
    for size, accumulation in ((8, 1), (2, 4)):
        config = {"z0": "zero"} if name == "kto" else {}
        some = tiny.fit(
            name,
            tmp_path,
            config=config,
            train=tiny.groups(kind, 24),
            max_steps=3,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
        )
        entries = [entry for entry in some.trainer.state.log_history if "loss" in entry]
        logs.append([{key: entry[key] for key in entry if key.startswith(KEY)} for entry in entries])
    assert logs[0][-1].keys() >= {KEY + "effective_share"}
    assert (KEY + "chosen_logp" in logs[0][-1]) is (name == "simpo")
    assert (KEY + "chosen_gain" in logs[0][-1]) is (name in ("dpo", "kto"))
    assert {key for entry in logs[0] for key in entry} <= MEANINGS.keys()
    for one, other in zip(*logs, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def test_a_rehearsal_leaves_no_trace(tmp_path: Path) -> None:
    some = tiny.trainer("simpo", tmp_path)
    some.rehearse(next(iter(some.steps.sampler(some.train_dataset, 4, train=True)))[0])
    assert some._meter.read(1) == {}


def test_held_out_rows_are_watched_too(tmp_path: Path) -> None:
    some = tiny.trainer("dpo", tmp_path)
    some.eval_dataset, some.held_out = some.train_dataset, tiny.groups("pairs", 37)
    found = some.evaluate()
    assert found["eval_diagnostics/chosen_gain"] == pytest.approx(0.0, abs=1e-6)
    assert "eval_diagnostics/effective_share" not in found


def test_the_documentation_names_every_number() -> None:
    text = (ROOT / "docs" / "diagnostics.md").read_text()
    for name in (*MEANINGS, *REMARKS):
        assert f"`{name.removeprefix(KEY)}`" in text, name
