"""The reference cache: what is put is got, under names that cannot be mistaken, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.cache.completions import TWO, files, fill, held, number, opened, value
from xpo.models import cache
from xpo.models.cache import LogpCache, identify, key


def test_what_is_put_is_got(root: Path) -> None:
    first = opened(root)
    assert first.get(number(1)) is None
    logps = torch.tensor([-1.5, -0.0, float("-inf"), -1e-42])
    first.put(number(1), logps)
    first.put(number(2), torch.tensor([], requires_grad=True))
    first.put(number(3), torch.tensor([-0.1, -2.7], dtype=torch.bfloat16))
    expected = {1: logps, 2: torch.empty(0), 3: torch.tensor([-0.1, -2.7], dtype=torch.bfloat16).float()}

    def check(found: LogpCache) -> None:
        for index, wanted in expected.items():
            got = found.get(number(index))
            assert got is not None
            assert got.dtype == torch.float32
            assert not got.requires_grad
            assert got.numpy().tobytes() == wanted.numpy().tobytes()
            got.add_(1.0)  # what a caller does with it is its own

    check(first)
    check(first)
    first.flush()
    check(first)
    assert (first.hits, first.misses, first.written, first.problems) == (9, 1, 3, [])
    first.close()
    second = opened(root)
    check(second)
    assert (second.hits, second.misses, second.written) == (3, 0, 0)
    second.put(number(1), value(1))  # known already
    second.close()
    assert len(files(root)) == 1
    assert held(root, [1], TWO) == set()


def test_a_key_says_where_the_prompt_ends() -> None:
    splits = [([], [1, 2, 3]), ([1], [2, 3]), ([1, 2], [3]), ([1, 2, 3], []), ([3], [1, 2]), ([1, 2], [2**40])]
    keys = {key(prompt, completion) for prompt, completion in splits}
    assert len(keys) == len(splits)
    assert {len(made) for made in keys} == {16}
    assert key((1,), [2, 3]) == key([1], (2, 3))


def test_an_identity_keeps_its_parts_apart() -> None:
    assert len({identify("ab", "c"), identify("a", "bc"), identify("abc"), identify("ab", "c", "")}) == 4
    with pytest.raises(ValueError, match="identify"):
        LogpCache("a model and bfloat16", folder=None, limit_bytes=0)


def test_without_a_folder_it_is_in_memory() -> None:
    kept = opened(None)
    kept.put(number(1), value(1))
    kept.flush()
    kept.refresh()
    found = kept.get(number(1))
    kept.close()
    assert found is not None
    assert torch.equal(found, value(1))
    assert kept.written == 0


@pytest.mark.parametrize("wrong", [torch.tensor([-1.0, float("nan")]), torch.zeros(1, 2), torch.tensor(1.0)])
def test_what_is_no_row_of_numbers_is_refused(root: Path, wrong: torch.Tensor) -> None:
    kept = opened(root)
    with pytest.raises(ValueError, match="numbers in one row"):
        kept.put(number(1), wrong)
    with pytest.raises(ValueError, match="a key is 16 bytes"):
        kept.put(b"short", value(1))
    kept.close()
    assert files(root) == []


def test_it_is_written_as_tokens_or_time_add_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = opened(root)
    monkeypatch.setattr(cache, "TOKENS", 100)
    kept.put(number(1), torch.zeros(60))
    assert files(root) == []
    kept.put(number(2), torch.zeros(60))
    assert len(files(root)) == 1
    monkeypatch.setattr(cache, "SECONDS", 0.0)
    kept.put(number(3), torch.zeros(1))
    assert len(files(root)) == 2
    assert kept.written == 3
    kept.close()
    assert len(files(root)) == 2


def test_a_reader_learns_what_others_have_written(root: Path) -> None:
    reader = opened(root)
    fill(root, range(3))
    assert reader.get(number(1)) is None
    reader.refresh()
    assert reader.get(number(1)) is not None
    reader.close()
