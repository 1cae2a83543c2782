"""``xpo bench`` as a command: help, one run through real processes, and one message for every mistake."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests import tiny
from tests.refusals import refused
from xpo.cli import main


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    from xpo.bench.options import NAMES

    assert main(["bench", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"--{name} " in text for name in NAMES)
    assert "None" not in text
    assert main(["--help"]) == 0
    assert "bench " in capsys.readouterr().out


def test_it_trains_in_processes_and_writes_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    tiny.saved(tmp_path / "model")
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tiny.rows("pairs", 20)))
    line = "--algos dpo --model model --dataset pairs.jsonl --eval_size 6 --max_steps 1 --eval_tokens 5 --use_cpu"
    assert main(["bench", *line.split(), "--output_dir", "out"]) == 0
    streams = capsys.readouterr()
    assert "1 of 1: dpo, seed 0: done" in streams.err
    assert "dpo      1/1" in streams.out
    assert streams.out.endswith("saved to out: table.md, table.csv, table.tex, records.json, report.html\n")
    assert {one.name for one in Path("out").iterdir()} == {
        *("records.json", "suite.json", "table.md", "table.csv", "table.tex", "report.html"),
        *("start", "cells", ".lock"),
    }
    [cell] = json.loads(Path("out/records.json").read_text())["cells"]
    assert cell["command"][:4] == ["xpo", "train", "--algo", "dpo"]
    assert "1 step" in Path("out", cell["log"]).read_text() or "step 1" in Path("out", cell["log"]).read_text()
    before = Path("out/table.md").read_text()
    Path("out/table.md").unlink()
    assert main(["bench", "--output_dir", "out", "--table"]) == 0
    assert Path("out/table.md").read_text() == before
    again = capsys.readouterr()
    assert again.err == ""  # nothing was run
    assert again.out == streams.out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "--output_dir is missing"),
        ("--output_dir out", "name the methods to compare with --algos"),
        ("--algos dpo,smpo --output_dir out", "there is no algorithm 'smpo'. Did you mean"),
        ("--algos dpo,npo --output_dir out", "npo learns to forget"),
        ("--output_dir out --table", "there is no suite here"),
        ("--output_dir out --table --algos dpo", "--table draws what is there and runs nothing"),
        ("--algos dpo --output_dir file", "file is not a directory"),
        ("--algos dpo --output_dir out --config none.yaml", "none.yaml: No such file"),
        ("--algos dpo --output_dir out --executor ray", "--executor ray needs Ray"),
        ("--algos dpo --output_dir out --dataset none.jsonl --max_steps 1", "There is no data file 'none.jsonl'"),
    ],
)
def test_mistakes_are_one_message_and_leave_nothing(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("mine")
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    said = refused(["bench", *line.split()], capsys)
    assert message in said
    assert "\n" not in said
