"""A step is a mean over its items: how they are spread over micro-batches, rows and padding changes nothing.

Weights are compared after five steps of AdamW as it comes. Its update divides by the size of the gradient, so it can
turn the rounding of a gradient near zero into an update of the order of the learning rate, here 1e-3. The tolerance is
a hundredth of that, ten times what is found; a mean of means misses it by a factor of fifty.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from xpo import Batch, Completion, Group
from xpo.models.layout import Layout, Tree, padded
from xpo.models.scoring import PLAIN, Engine, score

#: 37 rows in steps of 8: the fifth and last holds 5, which no split divides evenly.
ROWS, STEP = 37, 8
SPLITS = [(8, 1), (4, 2), (1, 8)]
TOLERANCE = 1e-5
ADAM = {"learning_rate": 1e-3, "max_steps": -1, "num_train_epochs": 1}


ENGINES = {
    "plain": PLAIN,
    "padded": Engine(padded, compact=True),
    "tree": Engine(Tree(), compact=True),
    "rows of trees": Engine(Tree(reach=30.0), compact=True),
    "branches": Engine(Tree(reach=30.0), compact=True, branches=True),
}
each_engine = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)


def run(name: str, folder: Path, split: tuple[int, int], config: dict[str, Any] | None = None, **more: Any) -> tiny.Fit:
    arguments = {**ADAM, "per_device_train_batch_size": split[0], "gradient_accumulation_steps": split[1], **more}
    return tiny.fit(name, folder, config=config, **arguments)


#: Nothing in these depends on the micro-batch.
SAME = {
    "dpo": ("dpo", {}),
    "dpo, smoothed": ("dpo", {"beta": 0.5, "label_smoothing": 0.1}),
    "simpo": ("simpo", {}),
    "simpo with NLL": ("simpo", {"sft_weight": 1.0}),
    "kto, z0 zero": ("kto", {"z0": "zero", "desirable_weight": 1.3}),
    "two methods and likelihood": ("dpo + 0.5*simpo + 0.2*sft", {"dpo__beta": 0.5}),
    "a list": ("lipo", {}),
    "a reward model": ("bradley_terry", {}),
    "a value model": ("dro_v", {}),
    "forget and retain": ("npo", {}),
    "rloo": ("rloo", {}),
    "rloo, normalised": ("rloo", {"normalize_advantages": True}),
}


@pytest.mark.parametrize("case", SAME)
def test_the_split_into_micro_batches_changes_nothing(tmp_path: Path, case: str) -> None:
    name, config = SAME[case]
    runs = [run(name, tmp_path / str(number), split, config) for number, split in enumerate(SPLITS)]
    start = {**tiny.classifier().state_dict(), **tiny.model().state_dict()}
    moved = max(
        float((weight - start[key]).abs().max()) for key, weight in runs[0].weights.items() if "score" not in key
    )
    assert moved > 1e-3
    for other in runs[1:]:
        assert len(other.losses) == len(runs[0].losses) == 5
        assert max(abs(a - b) for a, b in zip(runs[0].losses, other.losses, strict=True)) < TOLERANCE
        assert runs[0].distance(other) < TOLERANCE


def test_a_rollout_that_is_used_again_does_not_depend_on_the_split_either(tmp_path: Path) -> None:
    runs = [run("rloo", tmp_path / str(split[0]), split, iterations=2) for split in SPLITS]
    assert len(runs[0].losses) == 10
    for other in runs[1:]:
        assert runs[0].distance(other) < TOLERANCE


def test_kto_estimates_z0_from_each_micro_batch(tmp_path: Path) -> None:
    """As its documentation says; the mismatched completions themselves are those of the whole step."""
    config = {"beta": 1.0}
    whole, halves = (run("kto", tmp_path / str(split[0]), split, config) for split in SPLITS[:2])
    logs = [[entry["kl"] for entry in one.trainer.state.log_history if "kl" in entry] for one in (whole, halves)]
    assert max(logs[0][0], logs[1][0]) < 1e-5  # policy and reference are still the same
    assert abs(whole.losses[0] - halves.losses[0]) < TOLERANCE
    assert whole.distance(halves) > 10 * TOLERANCE


def test_metrics_do_not_depend_on_the_split(tmp_path: Path) -> None:
    runs = [run("dpo", tmp_path / str(split[0]), split) for split in SPLITS]
    logs = [[e for e in one.trainer.state.log_history if "loss" in e] for one in runs]
    for other in logs[1:]:
        for a, b in zip(logs[0], other, strict=True):
            assert a.keys() == b.keys()
            for key in a.keys() - {"epoch"}:  # a share of micro-batches, as transformers counts
                assert a[key] == pytest.approx(b[key], abs=1e-4, rel=1e-4), key


def test_the_same_completions_are_sampled_whatever_the_split(tmp_path: Path) -> None:
    seen: list[dict[int, list[list[int]]]] = []
    for split in SPLITS:
        trainer = run("rloo", tmp_path / str(split[0]), split, max_steps=1).trainer
        groups = [group for micro in trainer.supply.filled[0, 0] for group in micro.groups]
        seen.append({group.row: [completion.ids for completion in group.completions] for group in groups})
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == STEP
    assert len({tuple(ids) for some in seen[0].values() for ids in some}) > STEP


@each_engine
def test_scores_depend_on_nothing_else_in_the_batch(engine: Engine) -> None:
    """Neighbours, their lengths and so the padding change nothing; computed in float64 to leave no doubt."""
    policy = tiny.model().double()
    groups = tiny.groups("pairs", 6, longest=20)
    together = score(policy, Batch.of(groups, dtype=torch.float64), engine).logps
    alone = [score(policy, Batch.of([group], dtype=torch.float64), engine).logps for group in groups]
    for number, logps in enumerate(alone):
        width = logps.shape[1]
        assert torch.allclose(together[2 * number : 2 * number + 2, :width], logps, atol=1e-12)
        assert not together[2 * number : 2 * number + 2, width:].any()


def by_hand(policy: torch.nn.Module, prompt: list[int], completion: list[int]) -> list[float]:
    """One row, no padding, no mask."""
    with torch.no_grad():
        logps = policy(torch.tensor([prompt + completion])).logits[0].log_softmax(-1)
    return [float(logps[len(prompt) - 1 + position, token]) for position, token in enumerate(completion)]


@each_engine
@pytest.mark.parametrize(
    "completion",
    [
        [5],
        [0],
        [0, 0, 3, tiny.EOS],
        [3, 0, tiny.EOS],
        [tiny.EOS],
        [tiny.EOS, 4, tiny.EOS],
        [4, tiny.WORDS.index("<pad>")],
    ],
    ids=str,
)
def test_every_token_of_a_completion_counts(completion: list[int], engine: Engine) -> None:
    """The first and the last, id 0, EOS inside and at the end, and the tokenizer's padding where it is text."""
    policy = tiny.model().double()
    group = Group([7, 0, 2], [Completion(completion)])
    longer = Group([1], [Completion([9] * 12)])
    found = score(policy, Batch.of([group, longer], dtype=torch.float64), engine)
    expected = by_hand(policy, group.prompt_ids, completion)
    assert found.lengths[0] == len(completion)
    assert found.logps[0, : len(completion)].tolist() == pytest.approx(expected, abs=1e-12)
    assert float(found.sum()[0]) == pytest.approx(sum(expected), abs=1e-11)


@each_engine
def test_what_stands_in_the_padding_does_not_matter(engine: Engine) -> None:
    policy, batch = tiny.model().double(), Batch.of(tiny.groups("pairs", 5), dtype=torch.float64)
    assert not batch.mask.all()

    def other(batch: Batch, completions: torch.Tensor, whole: bool = False) -> Layout:
        rows = engine.arrange(batch, completions)
        old = rows.input_ids.shape[1]
        wide = {
            "input_ids": torch.nn.functional.pad(rows.input_ids, (0, 7)),
            "positions": torch.nn.functional.pad(rows.positions, (0, 7)),
            "real": torch.nn.functional.pad(rows.real, (0, 7)),
        }
        wide["input_ids"] = wide["input_ids"].masked_fill(~wide["real"], tiny.EOS)
        ends = rows.ends
        if ends is not None:
            ends = torch.cat([ends, torch.arange(old, old + 7).expand(len(ends), -1)], 1)
        source = rows.source // old * (old + 7) + rows.source % old
        return replace(rows, **wide, ends=ends, source=source)

    expected = score(policy, batch, engine).logps
    assert torch.allclose(score(policy, batch, replace(engine, arrange=other)).logps, expected, atol=1e-12)


@each_engine
def test_a_completion_without_gradient_scores_the_same_and_gets_none(engine: Engine) -> None:
    policy = tiny.model()
    groups = tiny.groups("pairs", 3)
    expected = score(policy, Batch.of(groups), engine).logps.detach()
    for group in groups:
        group.completions[1].trainable = False
    found = score(policy, Batch.of(groups), engine).logps
    assert torch.allclose(found, expected, atol=1e-5)
    loss = found[1::2].sum()
    loss.backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in policy.parameters())


@each_engine
def test_temperature_divides_the_logits(engine: Engine) -> None:
    policy = tiny.model().double()
    group = Group([7, 2], [Completion([3, 4, tiny.EOS])])
    with torch.no_grad():
        logits = policy(torch.tensor([[7, 2, 3, 4, tiny.EOS]])).logits[0] / 0.5
    expected = [float(logits[1 + n].log_softmax(-1)[token]) for n, token in enumerate([3, 4, tiny.EOS])]
    assert score(policy, Batch.of([group]), engine, temperature=0.5).logps[0].tolist() == pytest.approx(
        expected, abs=1e-12
    )
