"""``xpo cache``: what is cached, in a table and as JSON, and clearing it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from xpo.cli import main
from xpo.cli.cache import size
from xpo.models.cache import LogpCache, identify, key

MODELS = {"Qwen/Qwen3-0.6B": 3, "Qwen/Qwen3-4B": 5, "runs/my model": 1200}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three caches; the first was last used ten days ago."""
    root = tmp_path / "cache"
    monkeypatch.setenv("XPO_CACHE", str(root))
    for name, count in MODELS.items():
        cache = LogpCache(identify(name), folder=root, limit_bytes=10**9, describe={"model": name})
        for number in range(count):
            cache.put(key([number], [1]), torch.zeros(2))
        cache.close()
        assert cache.problems == []
    for path in (root / "reference" / identify("Qwen/Qwen3-0.6B")[:32]).iterdir():
        os.utime(path, (time.time() - 10 * 86400,) * 2)
    return root


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    assert main(["cache", "--json"]) == 0
    return {one["model"]: one for one in json.loads(capsys.readouterr().out)["caches"]}


def on_disk(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def test_the_table(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPO_CACHE_LIMIT", "5GB")
    assert main(["cache"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = (line for line in lines if "my model" in line)
    today = time.strftime("%Y-%m-%d")
    assert line.split()[:5] == ["runs/my", "model", identify("runs/my model")[:10], "1,200", "2,400"]
    assert today in line
    assert today not in next(line for line in lines if "0.6B" in line)
    assert lines[-1] == f"{root}: {size(on_disk(root))} of 5 GB"


def test_as_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {key: found[key] for key in ("folder", "limit", "bytes")} == {
        "folder": str(root),
        "limit": 10**10,
        "bytes": on_disk(root),
    }
    assert {one["model"]: one["completions"] for one in found["caches"]} == MODELS
    assert all(one["identity"] == identify(one["model"])[:32] for one in found["caches"])


def test_nothing_cached(capsys: pytest.CaptureFixture[str]) -> None:
    root = os.environ["XPO_CACHE"]
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"{root}: nothing is cached yet; the limit is 10 GB\n"
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"freed 0 B in {root}\n"
    assert not Path(root).exists()


def test_clearing_all(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    total = on_disk(root)
    assert main(["cache", "clear"]) == 0
    assert capsys.readouterr().out == f"freed {size(total)} in {root}\n"
    assert listed(capsys) == {}


@pytest.mark.parametrize("name", ["Qwen/Qwen3-4B", identify("Qwen/Qwen3-4B")[:10], identify("Qwen/Qwen3-4B")[:32]])
def test_clearing_one_model(root: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    total = on_disk(root)
    assert main(["cache", "clear", "--model", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(root), "freed": total - on_disk(root)}
    assert listed(capsys).keys() == MODELS.keys() - {"Qwen/Qwen3-4B"}


def test_clearing_what_is_old(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "clear", "--older_than", "5", "--model", "Qwen/Qwen3-4B"]) == 0
    assert main(["cache", "clear", "--older_than", "12.5"]) == 0
    assert capsys.readouterr().out == f"freed 0 B in {root}\n" * 2
    assert main(["cache", "clear", "--older_than", "5"]) == 0
    capsys.readouterr()
    assert listed(capsys).keys() == MODELS.keys() - {"Qwen/Qwen3-0.6B"}


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clear", "--model", "Qwen/Qwen3-4b-"], "nothing is cached of 'Qwen/Qwen3-4b-'. Did you mean 'Qwen/Qwen3-4B'"),
        (["clear", "--model", ""], "several identities begin with ''"),
        (["clear", "--older_than", "soon"], "--older_than is 'soon', which is no number of days"),
        (["clear", "--older_than", "nan"], "--older_than is 'nan', which is no number of days"),
        (["clear", "--older_than", "-1"], "--older_than is '-1', which is no number of days"),
        (["--model", "Qwen/Qwen3-4B"], "`xpo cache clear --model NAME`"),
        (["clean"], "invalid choice: 'clean'"),
    ],
)
def test_a_mistake_clears_nothing(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["cache", *words]) == 2
    assert message in capsys.readouterr().err
    assert listed(capsys).keys() == MODELS.keys()


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("words", [["--help"], [], ["--json"], ["clear"]])
def test_it_does_not_wait_for_torch(words: list[str]) -> None:
    code = f"""
import sys
from xpo.cli import main
assert main({["cache", *words]!r}) == 0
print(*(name for name in ("torch", "transformers", "trl") if name in sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
    assert done.stdout


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12345, "12.3 kB"), (999_600, "1 MB"), (5 * 10**9, "5 GB")],
)
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text


def test_no_test_reaches_the_cache_of_the_person_who_runs_it() -> None:
    code = "from xpo.models.store import cache_root; print(cache_root())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(os.environ["HOME"])
    assert "pytest" in done.stdout
