"""docs/label.md does what it says: its commands run as they stand, its tables name the columns that are written."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.label.conftest import Label
from xpo.cli import main
from xpo.label.settings import slots
from xpo.label.writing import FREE

DOC = (ROOT / "docs" / "label.md").read_text(encoding="utf-8")


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [block] = re.findall(r"^```bash\n(.*?)^```$", DOC, re.DOTALL | re.MULTILINE)
    commands = block.splitlines()
    assert len(commands) == 2
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "xpo"
        assert main(words) == 0
    record = json.loads((tmp_path / "runs" / "labelled" / "run.json").read_text())
    assert record["data"]["rows"] == len((tmp_path / "pairs.jsonl").read_text().splitlines())


@pytest.mark.parametrize("to", ["pairs", "labels", "lists"])
def test_the_columns(label: Label, mine: str, to: str) -> None:
    rows = [{"prompt": "w1", "completions": [" w1", " w2 w3"]}]
    [row, *_] = label(f"--to {to} --reward {mine}:length", data=rows).rows
    line = next(line for line in DOC.splitlines() if line.startswith(f"| `{to}` |"))
    told = re.findall(r"`(\w+)`", line.split("|")[2])
    assert list(row)[: len(told)] == told
    assert all(f"`{name}`" in DOC for name in row)


def test_settings_that_are_named_exist() -> None:
    named = set(re.findall(r"`--(\w+)", DOC)) - {"online", "model", "config", "dataset", "help"}
    assert named <= set(slots())
    assert all(f"--{name}" in DOC for name in FREE - {"output"})
