"""Rows for a model: what shares a position, what sees what, and how full the rows are."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.conftest import ROOT
from xpo.api.batch import Batch
from xpo.api.groups import Completion, Group
from xpo.models.layout import Layout, Tree, pack, padded

SHARED = Path(os.environ.get("XPO_SHARED", ROOT.parent / "shared"))


def laid(*groups: Group, reach: float = 1e9, tree: bool = True) -> tuple[Batch, Layout]:
    batch = Batch.of(list(groups))
    arrange = Tree(reach) if tree else padded
    return batch, arrange(batch, torch.arange(len(batch)))


def sequence(layout: Layout, row: int, column: int) -> list[int]:
    """The tokens that a position sees, in the order of their positions."""
    seen = layout.visible()[row, column].nonzero().flatten().tolist()
    positions = layout.positions[row][seen].tolist()
    assert sorted(positions) == list(range(len(seen)))
    return [int(layout.input_ids[row, seen[positions.index(place)]]) for place in range(len(seen))]


def check(batch: Batch, layout: Layout) -> None:
    """Every completion token is predicted once, from a position that sees all that comes before it and no more."""
    width = layout.input_ids.shape[1]
    owner = [group for group in batch.groups for _ in group.completions]
    found = set()
    for completion, token, source in zip(
        layout.completion.tolist(), layout.token.tolist(), layout.source.tolist(), strict=True
    ):
        before = owner[completion].prompt_ids + batch.ids[completion, :token].tolist()
        assert sequence(layout, source // width, source % width) == before
        found.add((completion, token))
    assert found == {(c, t) for c, t in batch.mask.nonzero().tolist()}


def test_a_prompt_is_computed_once_and_branches_part_where_tokens_do() -> None:
    group = Group([1, 2, 3], [Completion([4, 5, 6, 9]), Completion([4, 5, 7, 8, 9]), Completion([8])])
    batch, layout = laid(group)
    # The last token of a completion predicts nothing; 4 5 is common to two of them.
    assert layout.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert layout.positions.tolist() == [[0, 1, 2, 3, 4, 5, 5, 6]]
    check(batch, layout)


def test_equal_prompts_of_different_groups_are_one() -> None:
    batch, layout = laid(Group([1, 2], [Completion([3, 4])]), Group([1, 2], [Completion([5, 6])]))
    assert layout.input_ids.tolist() == [[1, 2, 3, 5]]
    check(batch, layout)


@pytest.mark.parametrize("reach", [1e9, 40.0, 1.0])
def test_random_groups(reach: float) -> None:
    rng = random.Random(0)

    def ids(most: int) -> list[int]:
        return [rng.randrange(3) for _ in range(rng.randint(1, most))]

    for _ in range(60):
        groups = [
            Group(ids(9), [Completion(ids(7)) for _ in range(rng.randint(1, 5))]) for _ in range(rng.randint(1, 6))
        ]
        check(*laid(*groups, reach=reach))


def test_empty_completions_predict_nothing() -> None:
    batch, layout = laid(Group([1, 2], [Completion([]), Completion([3])]), Group([4], [Completion([])]))
    assert layout.token.tolist() == [0]
    check(batch, layout)


def test_only_the_asked_for_completions_are_laid_out() -> None:
    batch = Batch.of([Group([1, 2], [Completion([3, 4]), Completion([5, 6])]), Group([7], [Completion([8, 9])])])
    layout = Tree()(batch, torch.tensor([1]))
    assert layout.input_ids.tolist() == [[1, 2, 5]]
    assert layout.completion.tolist() == [1, 1]


def test_padded_rows_hold_one_completion_each() -> None:
    batch, layout = laid(*tiny.groups("pairs", 3), tree=False)
    assert len(layout.input_ids) == 6
    assert layout.ends is None
    width = layout.input_ids.shape[1]
    assert layout.source.tolist() == [
        completion * width + len(batch.groups[completion // 2].prompt_ids) - 1 + token
        for completion, token in zip(layout.completion.tolist(), layout.token.tolist(), strict=True)
    ]


def test_a_window_is_counted_in_the_sequence_and_not_along_the_row() -> None:
    _, layout = laid(Group([1, 2, 3], [Completion([4, 5, 6, 9]), Completion([7, 8, 9])]))
    column = layout.input_ids[0].tolist().index(8)
    seen = layout.visible(window=3)[0, column].nonzero().flatten()
    assert layout.input_ids[0][seen].tolist() == [3, 7, 8]


def test_packing_takes_narrow_rows_when_looking_is_dear_and_one_row_when_it_is_cheap() -> None:
    sizes = [100, 90, 85, 33, 27, 11]
    assert pack(sizes, reach=1e9) == [[0, 1, 2, 3, 4, 5]]
    assert len(pack(sizes, reach=1.0)) == 4
    assert pack([100, 10, 10, 10], reach=1.0) == [[0, 1, 2, 3]]  # two rows would be narrower, and a third of them empty
    rng = random.Random(0)
    for _ in range(200):
        sizes = [rng.randint(1, 400) for _ in range(rng.randint(1, 16))]
        rows = pack(sizes, reach=rng.choice([10.0, 500.0, 5000.0]))
        assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    assert pack([9000, 10], reach=1e9) == [[0], [1]]  # no wider than the mask may be, but for a tree that is


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")
@pytest.mark.parametrize(
    ("name", "kind", "size"),
    [
        ("pairs/hh_harmless", "pairs", 8),
        ("pairs/dpo_mix_demo", "pairs", 8),
        ("lists/truthfulqa", "lists", 8),
        ("lists/tofu_facts", "lists", 8),
        ("labels/kto_mix_demo", "labels", 8),
        ("pairs/tofu_facts", "pairs", 16),
    ],
)
def test_rows_are_full_on_real_data(name: str, kind: str, size: int) -> None:
    from transformers import AutoTokenizer

    from xpo.data.prepare import prepare
    from xpo.data.sources import read

    tokenizer = AutoTokenizer.from_pretrained(SHARED / "models/stories260K-chat")
    rows = read(str(SHARED / "data" / f"{name}.jsonl.gz"))
    groups = prepare(rows, kind, tokenizer, max_length=1024).groups[:400]
    for reach in (256.0, 1600.0, 6000.0, 25000.0):  # of models from thousands to billions of parameters
        real = computed = 0
        for start in range(0, len(groups) - size + 1, size):
            batch = Batch.of(groups[start : start + size])
            layout = Tree(reach)(batch, torch.arange(len(batch)))
            real += int(layout.real.sum())
            computed += layout.real.numel()
        assert real / computed >= 0.85, (reach, real / computed)
