"""The reference cache: what is damaged or foreign is set aside, and never believed."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import save

from tests.models.cache.completions import ONE, files, fill, held, number, opened, value
from xpo.models import shards


def test_a_shard_cut_short_is_set_aside(root: Path) -> None:
    fill(root, range(5))
    fill(root, range(5, 10))
    path = files(root)[0]
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        reader = opened(root)
        assert len(reader.problems) == 1
        assert str(path) in reader.problems[0]
        assert sum(reader.get(number(index)) is not None for index in range(10)) == 5
        reader.close()
        assert not path.exists()
        assert path.with_suffix(".damaged").stat().st_size == length  # not older than a day, so it is still there
    path.write_bytes(whole)
    assert held(root, range(10)) == set(range(10))


def test_no_damaged_byte_passes(root: Path) -> None:
    """Each byte of a file in turn: what comes back is right or nothing."""
    fill(root, range(4))
    (path,) = files(root)
    whole = path.read_bytes()
    lost = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x15
        path.write_bytes(damaged)
        lost += held(root, range(4)) != {0, 1, 2, 3}
        path.unlink(missing_ok=True)
    assert lost > 0.9 * (len(whole) - 60)  # the free words in the header do not count


def test_damage_that_shows_late(root: Path) -> None:
    """Numbers are read when they are asked for. Until then nobody sees what became of them."""
    fill(root, range(10))
    (path,) = files(root)
    fill(root, range(10, 20))
    reader = opened(root)
    with path.open("r+b") as file:
        begin, count = shards.read_header(file).places["logps"]
        file.seek(begin)
        file.write(b"\xff" * count)
    there = {index for index in range(20) if reader.get(number(index)) is not None}
    assert {index for index in there if len(value(index))} == set(range(10, 20))
    assert len(reader.problems) == 1
    assert "checksums" in reader.problems[0]
    reader.put(number(1), value(1))
    reader.close()
    assert held(root, range(20)) == {1, *range(10, 20)}


@pytest.mark.parametrize("change", ["version", "identity", "nothing in it"])
def test_a_foreign_shard_is_set_aside(root: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    with monkeypatch.context() as patch:
        if change == "version":
            patch.setattr(shards, "VERSION", "0")
        fill(root, range(3), ONE[:32] + "0" * 32 if change == "identity" else ONE)
    if change == "nothing in it":
        files(root)[0].write_bytes(save({}, {"version": shards.VERSION, "identity": ONE}))
    reader = opened(root)
    assert reader.get(number(1)) is None
    assert len(reader.problems) == 1
    assert files(root) == []
    assert len(files(root, ".damaged")) == 1
