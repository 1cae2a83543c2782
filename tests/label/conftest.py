"""``xpo label`` as a user meets it, on models of some thousand parameters."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.feedback.test_judge_http import service  # noqa: F401 - a server, as a fixture
from xpo.cli import main

#: Judges and rewards of a user. Each question that is put to ``shorter`` leaves a line.
SOURCE = """
import pathlib

ASKED = pathlib.Path(__file__).with_name("asked.txt")


def words(content):
    return len((content if isinstance(content, str) else content[0]["content"]).split())


def shorter(prompts, completions, **columns):
    with ASKED.open("a") as file:
        file.writelines(f"{prompt}|{one}|{two}\\n" for prompt, (one, two) in zip(prompts, completions))
    odds = [words(two) / (words(one) + words(two)) if words(one) + words(two) else 0.5 for one, two in completions]
    return odds


def silent(prompts, completions, **columns):
    return [None for _ in prompts]


def even(prompts, completions, **columns):
    return [0.5 for _ in prompts]


def length(prompts, completions, **columns):
    return [float(words(one)) for one in completions]


def flat(prompts, completions, **columns):
    return [1.0 for one in completions]
"""


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str
    path: Path = field(repr=False)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").split("\n")[:-1]]

    @property
    def beside(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(Path(f"{self.path}.label").read_text(encoding="utf-8"))
        return found


#: ``label("--to lists ...", data=rows_or_path)`` runs the command in this process.
Label = Callable[..., Done]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model on disk, with a tokenizer of one token a word."""
    return tiny.saved(tmp_path_factory.mktemp("label") / "model")


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a chat template."""
    return tiny.saved_for_chat(tmp_path_factory.mktemp("label") / "chat")


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """The file with judges and rewards."""
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return str(path)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as JSONL."""

    def make(rows: Sequence[Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return make


@pytest.fixture
def label(tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> Label:
    """Run ``xpo label`` on a CPU; later flags win over these."""

    def run(line: str = "", *more: str | Path, data: Any = None, out: str = "out.jsonl") -> Done:
        path = tmp_path / out
        words = ["label", "--output", str(path), "--use_cpu"]
        if data is not None:
            words += ["--dataset", str(data if isinstance(data, str | Path) else write(data))]
        capsys.readouterr()
        status = main([*words, *line.split(), *map(str, more)])
        streams = capsys.readouterr()
        return Done(status, streams.out, streams.err, path)

    return run
