"""Rows are held out by prompt: none that is trained on is evaluated."""

from __future__ import annotations

import pytest

from xpo.data.sources import Rows
from xpo.errors import SettingError
from xpo.train.material import hold_out

ROWS = Rows.of([{"prompt": f"p{number // 3}", "chosen": "a", "rejected": "b"} for number in range(30)], "made.jsonl")


@pytest.mark.parametrize("size", [0.2, 6])
def test_no_prompt_is_on_both_sides(size: float) -> None:
    kept, out = hold_out(ROWS, size, seed=0)
    assert len(out) == 6
    assert len(kept) + len(out) == len(ROWS)
    assert not {row["prompt"] for row in kept.rows} & {row["prompt"] for row in out.rows}


def test_the_seed_decides_which() -> None:
    first, again, other = (hold_out(ROWS, 6, seed=seed)[1].fingerprint for seed in (0, 0, 1))
    assert first == again != other


def test_messages_still_name_the_original_row() -> None:
    _, out = hold_out(ROWS, 6, seed=0)
    number = next(index for index, row in enumerate(ROWS.rows) if row["prompt"] == out.rows[0]["prompt"])
    assert out.place(0).endswith(f"row {number + 1}")


@pytest.mark.parametrize("size", [30, 0.001, 100])
def test_nothing_left_is_refused(size: float) -> None:
    with pytest.raises(SettingError, match="--eval_size"):
        hold_out(ROWS, size, seed=0)
