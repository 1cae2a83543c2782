"""The reference cache: where it is, how large it may be, what is in it, and how it is cleared."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.models.cache.completions import ONE, TWO, fill, opened, value
from xpo import SettingError
from xpo.models import store
from xpo.models.cache import cache_limit, cache_root, clear, contents


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPO_CACHE", "~/there")
    assert cache_root() == Path(os.environ["HOME"]) / "there"
    monkeypatch.setenv("XPO_CACHE", "")
    assert cache_root() == Path(os.environ["XDG_CACHE_HOME"]) / "xpo"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path(os.environ["HOME"]) / ".cache" / "xpo"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 10**10), ("5GB", 5 * 10**9), (" 1.5 tb", 15 * 10**11), ("2GiB", 2**31), ("700m", 7 * 10**8), ("12", 12)],
)
def test_how_large_it_may_be(monkeypatch: pytest.MonkeyPatch, text: str, expected: int) -> None:
    monkeypatch.setenv("XPO_CACHE_LIMIT", text)
    assert cache_limit() == expected


@pytest.mark.parametrize("text", ["much", "-1GB", "5 parsecs", "GB"])
def test_a_limit_that_is_no_size(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("XPO_CACHE_LIMIT", text)
    with pytest.raises(SettingError, match=r"XPO_CACHE_LIMIT.*5GB"):
        cache_limit()


def test_what_is_in_it(root: Path) -> None:
    assert contents(root) == []
    fill(root, range(10), ONE, model="a/b")
    opened(root, ONE, model="another name").close()
    note = json.loads((store.place(root, ONE) / "about.json").read_text())
    assert note["model"] == "a/b"
    assert note["identity"] == ONE
    assert {"created", "xpo"} < set(note)
    fill(root, range(3), TWO)
    (store.place(root, TWO) / "about.json").write_text("[]")
    mine = {stored.identity: stored for stored in contents(root)}
    assert list(mine) == [TWO[:32], ONE[:32]]
    stored = mine[ONE[:32]]
    assert (stored.model, stored.completions) == ("a/b", 10)
    assert stored.tokens == sum(len(value(index)) for index in range(10))
    assert stored.size == sum(path.stat().st_size for path in store.place(root, ONE).iterdir())
    assert abs(stored.used - time.time()) < 60
    assert mine[TWO[:32]].model == "?"


def test_clearing_takes_only_what_is_ours(root: Path) -> None:
    fill(root, range(10), ONE)
    fill(root, range(10), TWO)
    other = store.place(root, TWO) / "notes.txt"
    other.write_text("mine")
    sizes = {stored.identity: stored.size for stored in contents(root)}
    assert clear(root, older_than_days=1) == 0
    assert clear(root, ONE[:32]) == sizes[ONE[:32]]
    assert not store.place(root, ONE).exists()
    for path in store.place(root, TWO).iterdir():
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert clear(root, older_than_days=1) == sizes[TWO[:32]]
    assert [path.name for path in store.place(root, TWO).iterdir()] == ["notes.txt"]
    assert contents(root) == []
