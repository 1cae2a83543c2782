"""docs/tutorial.md: followed from the first block to the last, in one folder, as a reader would."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.conftest import ROOT, MakePackage
from xpo.cli import main

PAGE = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS: list[tuple[str, str]] = FENCE.findall(PAGE)
FOLDER = "cal-dpo"


class Reader(Protocol):
    """How the steps of the page are taken; each returns what was printed."""

    def xpo(self, words: list[str]) -> str: ...
    def pip(self, words: list[str]) -> str: ...
    def pytest(self, words: list[str]) -> str: ...
    def python(self, script: str) -> str: ...


def follow(reader: Reader, folder: Path) -> str:
    """Take every step; all that was printed. The lines of a text block are of what was printed before it."""
    printed = ""
    for language, body in BLOCKS:
        head = body.partition("\n")[0]
        if language == "bash":
            for line in body.splitlines():
                program, *words = shlex.split(line)
                printed += getattr(reader, program)(words)
        elif language == "text":
            for line in body.splitlines():
                assert " ".join(line.split()) in " ".join(printed.split()), line
        elif head.startswith("# "):
            (folder / head.removeprefix("# ")).write_text(body)
        else:
            printed += reader.python(body)
    return printed


def metrics(folder: Path, name: str) -> Mapping[str, float]:
    found: Mapping[str, float] = json.loads((folder / f"runs/{name}/run.json").read_text())["metrics"]
    return found


class InProcess:
    """Here and with a few steps: nothing is installed but what the fixture makes of the package's own metadata."""

    def __init__(self, folder: Path, package: MakePackage, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.package, self.capsys = folder, package, capsys

    def _printed(self) -> str:
        return self.capsys.readouterr().out

    def xpo(self, words: list[str]) -> str:
        short = ["--max_steps", "2", "--dataset", "testbed:size=20", "--eval_prompts", "2", "--sample_completions", "0"]
        assert main([*words, *(short if words[0] == "train" else ())]) == 0
        return self._printed()

    def pip(self, words: list[str]) -> str:
        assert words == ["install", "-e", f"./{FOLDER}"]
        project = self._project()
        self.package(project["name"], {}, project["entry-points"]["xpo"], project["version"])
        return ""

    def pytest(self, words: list[str]) -> str:
        assert words == [FOLDER]
        [module] = self._project()["entry-points"]["xpo"].values()
        importlib.invalidate_caches()  # the folder was not there when it was put on the path
        tests = vars(importlib.import_module(f"test_{module}"))
        found = [test for name, test in tests.items() if name.startswith("test_")]
        assert len(found) == 2
        for test in found:
            test()
        return ""

    def python(self, script: str) -> str:
        exec(compile(script, "tutorial", "exec"), {})
        return self._printed()

    def _project(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = tomllib.loads((self.folder / FOLDER / "pyproject.toml").read_text())["project"]
        return found


def test_every_block_works(
    package: MakePackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder / FOLDER))
    known = set(sys.modules)
    try:
        printed = follow(InProcess(folder, package, capsys), folder)
    finally:
        for name in set(sys.modules) - known:
            if name in ("cal_dpo", "test_cal_dpo"):
                del sys.modules[name]
    assert "next:\n  pip install -e ./cal-dpo\n" in printed
    assert "cal-dpo 0.1.0" in " ".join(printed.split())
    assert printed.count("KL to the start: ") == 2


class Newcomer:
    """As the page says, in processes and an environment of its own, on top of the one the tests run in."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.folder, self.python_ = folder, environment / "bin/python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
        site = subprocess.run(
            [self.python_, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        # What is installed there, xpo itself in whatever way, is there as well; what is installed here stays here.
        below = sysconfig.get_path("purelib")
        (Path(site) / "below.pth").write_text(f"import site; site.addsitedir({below!r})\n")

    def _run(self, *words: str | Path) -> str:
        hidden = ("PYTHONPATH", "PYTHONHOME")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        done = subprocess.run(
            [self.python_, *words], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def xpo(self, words: list[str]) -> str:
        return self._run("-m", "xpo", *words)

    def pip(self, words: list[str]) -> str:
        # pip runs in the environment of the tests and installs into the other one, without a network.
        pip = [sys.executable, "-m", "pip", "--python", str(self.python_), words[0], "--no-build-isolation"]
        done = subprocess.run([*pip, "--no-deps", *words[1:]], cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return ""

    def pytest(self, words: list[str]) -> str:
        return self._run("-m", "pytest", "-q", *words)

    def python(self, script: str) -> str:
        return self._run("-c", script)


@pytest.mark.slow
def test_a_newcomer_gets_what_the_page_says(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    printed = follow(Newcomer(folder, tmp_path / "environment"), folder)
    assert "2 passed" in printed
    ours, theirs = metrics(folder, "cal_dpo"), metrics(folder, "dpo")
    accuracy, moved = "final/preference accuracy (implicit reward)", "final/KL to the start"
    assert ours[accuracy] > theirs[accuracy] > 0.5
    assert ours[moved] < 0.5 * theirs[moved]
    assert min(one["final/win rate against the start"] for one in (ours, theirs)) > 0.55


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
