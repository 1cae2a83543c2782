"""Killed at any moment and started again, the file is what it would have been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.label.conftest import Done, Label
from xpo.data.sources import read
from xpo.label.writing import Output

PROMPTS = [{"prompt": f"w{number} w3", "topic": number} for number in range(7)]
LINE = "--max_completion_length 8 --num_generations 3 --batch_size 2"

#: A reward that fails for good, or kills its process, when it is called for the nth time.
SOURCE = """
import os, pathlib, signal

CALLS = pathlib.Path(__file__).with_name("calls.txt")


def length(prompts, completions, **columns):
    with CALLS.open("a") as file:
        file.write("x")
    stop = pathlib.Path(__file__).with_name("stop.txt")
    if stop.exists() and CALLS.stat().st_size == int(stop.read_text()):
        stop.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return [float(len(one.split())) for one in completions]
"""


@pytest.fixture
def reward(tmp_path: Path) -> Path:
    path = tmp_path / "counted.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def whole(label: Label, model: Path, reward: Path) -> Done:
    """What an uninterrupted start writes."""
    done = label(f"{LINE} --reward {reward}:length --model", model, data=PROMPTS)
    assert done.status == 0, done.err
    reward.with_name("calls.txt").unlink()
    return done


def interrupt(patch: pytest.MonkeyPatch, batch: int, where: str) -> None:
    """Stop work at a batch: before its rows are written, or behind them, when nobody has noted them yet."""
    append, note = Output.append, Output._note
    calls = []

    def appending(self: Output, *given: Any) -> None:
        calls.append(given)
        if len(calls) == batch and where == "before":
            raise KeyboardInterrupt
        append(self, *given)

    def noting(self: Output) -> None:
        if len(calls) == batch and where == "behind" and self._begun:
            raise KeyboardInterrupt
        note(self)

    patch.setattr(Output, "append", appending)
    patch.setattr(Output, "_note", noting)


@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize("batch", [1, 2, 4])
def test_interrupted(label: Label, model: Path, reward: Path, whole: Done, batch: int, where: str) -> None:
    line = f"{LINE} --reward {reward}:length --model"
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, batch, where)
        assert label(line, model, data=PROMPTS, out="cut.jsonl").status == 130
    calls = reward.with_name("calls.txt")
    before = calls.stat().st_size
    done = label(line, model, data=PROMPTS, out="cut.jsonl")
    assert done.status == 0, done.err
    assert done.path.read_bytes() == whole.path.read_bytes()
    # Nothing was labelled twice but the batch that was under way, and all is counted once.
    assert before == batch
    assert calls.stat().st_size - before == 4 - (batch - 1)
    assert {**done.beside["outcome"], "seconds": 0} == {**whole.beside["outcome"], "seconds": 0}
    assert done.beside["finished"] is True
    assert ("going on with" in done.err) is (batch > 1)


@pytest.mark.parametrize("junk", [b'{"prompt": "w0', b'{"prompt": "w1"}\n{"pro', b"\x00\x00"])
def test_a_half_written_line_is_repaired(label: Label, model: Path, reward: Path, whole: Done, junk: bytes) -> None:
    line = f"{LINE} --reward {reward}:length --model"
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 3, "before")
        cut = label(line, model, data=PROMPTS, out="cut.jsonl")
    with cut.path.open("ab") as file:
        file.write(junk)
    assert label(line, model, data=PROMPTS, out="cut.jsonl").path.read_bytes() == whole.path.read_bytes()


@pytest.mark.slow
def test_killed(model: Path, reward: Path, whole: Done, label: Label, tmp_path: Path) -> None:
    """By the system, in the midst of a batch: no exception, nothing tidied up."""
    reward.with_name("stop.txt").write_text("3")
    rows, out = tmp_path / "rows.jsonl", tmp_path / "cut.jsonl"
    words = [*f"{LINE} --use_cpu --reward {reward}:length --model {model}".split(), "--dataset", rows, "--output", out]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    call = [sys.executable, "-m", "xpo", "label", *map(str, words)]
    dead = subprocess.run(call, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    assert json.loads(Path(f"{out}.label").read_text())["done"] == 4
    done = label(f"{LINE} --reward {reward}:length --model", model, data=rows, out="cut.jsonl")
    assert done.path.read_bytes() == whole.path.read_bytes()


def test_the_judge_goes_on_counting(label: Label, model: Path, mine: str, whole: Done) -> None:
    line = f"{LINE} --judge {mine}:shorter --model"
    at_once = label(line, model, data=PROMPTS, out="once.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 3, "behind")
        label(line, model, data=PROMPTS, out="cut.jsonl")
    done = label(line, model, data=PROMPTS, out="cut.jsonl")
    told = [{**one.beside["judge"], "seconds": 0} for one in (at_once, done)]
    assert told[0] == told[1]
    assert told[0]["asked"] > 6


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--temperature 0.5", "--temperature 1.0, and now it is 0.5"),
        ("--to lists", "--to pairs, and now it is lists"),
        ("--seed 4", "--seed 0, and now it is 4"),
        ("--limit 3", "--limit not given, and now it is 3"),
    ],
)
def test_another_command_on_the_same_file(
    label: Label, model: Path, reward: Path, whole: Done, flag: str, told: str
) -> None:
    before = whole.path.read_bytes()
    done = label(f"{LINE} {flag} --reward {reward}:length --model", model, data=PROMPTS)
    assert (done.status, done.path.read_bytes()) == (2, before)
    assert f"was made with {told}; choose another --output, or replace it: --overwrite" in done.err


def test_other_data(label: Label, model: Path, reward: Path, whole: Done) -> None:
    done = label(f"{LINE} --reward {reward}:length --model", model, data=PROMPTS[:-1])
    assert done.status == 2
    assert "other rows of rows.jsonl than there are now" in done.err


def test_what_changes_no_row_may_change(label: Label, model: Path, reward: Path, whole: Done) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 2, "before")
        label(f"{LINE} --reward {reward}:length --model", model, data=PROMPTS, out="cut.jsonl")
    done = label(f"{LINE} --batch_size 3 --reward {reward}:length --model", model, data=PROMPTS, out="cut.jsonl")
    assert done.path.read_bytes() == whole.path.read_bytes()


def test_a_finished_file_is_left_alone(label: Label, model: Path, reward: Path, whole: Done) -> None:
    line, before = f"{LINE} --reward {reward}:length --model", whole.path.read_bytes()
    done = label(line, model, data=PROMPTS)
    assert (done.status, done.path.read_bytes()) == (2, before)
    assert f"is finished ({len(whole.rows)} rows); choose another --output, or label anew: --overwrite" in done.err
    other = label(f"{line.replace('--model', '--seed 5 --overwrite --model')}", model, data=PROMPTS)
    assert other.status == 0
    assert other.path.read_bytes() != before
    assert {row["seed"] for row in other.rows} == {5}


def test_replacing_can_be_gone_on_with_too(label: Label, model: Path, reward: Path, whole: Done) -> None:
    """The same command, --overwrite included, must not begin again whenever it is started again."""
    line = f"{LINE} --overwrite --reward {reward}:length --model"
    kept = whole.path.read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 1, "before")
        assert label(line, model, data=PROMPTS).path.read_bytes() == kept  # until there is something to replace it by
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 3, "before")
        assert label(line, model, data=PROMPTS).status == 130
    calls = reward.with_name("calls.txt")
    before = calls.stat().st_size
    assert label(line, model, data=PROMPTS).path.read_bytes() == kept
    assert calls.stat().st_size - before == 2


def test_a_strangers_file_is_left_alone(label: Label, model: Path, reward: Path, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine\n")
    done = label(f"{LINE} --overwrite --reward {reward}:length --model", model, data=PROMPTS)
    assert (done.status, done.path.read_text()) == (2, "mine\n")
    assert "xpo label did not write it" in done.err


def test_lost_rows_are_noticed(label: Label, model: Path, reward: Path) -> None:
    line = f"{LINE} --reward {reward}:length --model"
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, 3, "before")
        cut = label(line, model, data=PROMPTS)
    cut.path.write_text("")
    done = label(line, model, data=PROMPTS)
    assert done.status == 2
    assert "has lost rows" in done.err


def test_the_file_beside_is_no_data(label: Label, model: Path, reward: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    done = label(f"{LINE} --reward {reward}:length --model", model, data=PROMPTS, out="made/out.jsonl")
    assert len(read(str(tmp_path / "made"))) == len(done.rows)
