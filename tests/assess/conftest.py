"""``xpo eval`` as a user meets it, on models of some thousand parameters."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from xpo.cli import main

#: Judges and rewards of a user.
SOURCE = """
def text(content):
    return content if isinstance(content, str) else content[0]["content"]


def words(content):
    return len(text(content).split())


def length(prompts, completions, **columns):
    return [float(words(one)) for one in completions]


def short(prompts, completions, **columns):
    return [-float(words(one)) for one in completions]


def flat(prompts, completions, **columns):
    return [1.0 for one in completions]


def truth(prompts, completions, **columns):
    return [float("w1" in text(one).split()) for one in completions]


def first(prompts, completions, **columns):
    return [1.0 for _ in prompts]


def longer(prompts, completions, **columns):
    return [words(one) / (words(one) + words(two)) if words(one) + words(two) else 0.5 for one, two in completions]


def silent(prompts, completions, **columns):
    return [None for _ in prompts]


def shy(prompts, completions, **columns):
    return [None if words(one) == words(two) else float(words(one) > words(two)) for one, two in completions]


def place(prompts, completions, **columns):
    # Likes the first, and likes w1 more.
    return [0.6 + 0.3 * (("w1" in text(one).split()) - ("w1" in text(two).split())) for one, two in completions]
"""


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str
    folder: Path = field(repr=False)

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "eval.json").read_text(encoding="utf-8"))
        return found

    @property
    def items(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "items.jsonl").read_text(encoding="utf-8").splitlines()]

    @property
    def sheet(self) -> dict[str, Mapping[str, str]]:
        """The CSV, by the name of the line."""
        with (self.folder / "eval.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {next(iter(row.values())): row for row in rows}

    def line(self, name: str) -> dict[str, Any]:
        """A line of the table."""
        [found] = [one for one in self.body["table"]["lines"] if one["name"] == name]
        return dict(found)

    def value(self, name: str, column: str = "mean_over_all") -> float:
        return float(self.line(name)["numbers"][column]["value"])


#: ``evaluate("--model ...", data=rows_or_path)`` runs the command in this process.
Evaluate = Callable[..., Done]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model on disk, with a tokenizer of one token a word."""
    return tiny.saved(tmp_path_factory.mktemp("eval") / "model")


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another one with the same tokens."""
    return tiny.saved(tmp_path_factory.mktemp("eval") / "other", seed=1)


@pytest.fixture(scope="session")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first one with a chat template."""
    return tiny.saved_for_chat(tmp_path_factory.mktemp("eval") / "chatty")


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A file with judges and rewards."""
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return str(path)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    def run(line: str, *words: str, data: Any = None, out: str = "out", status: int = 0) -> Done:
        if data is not None and not isinstance(data, str | Path):
            data = write(tmp_path / "data.jsonl", data)
        given = ["--dataset", str(data)] if data is not None else []
        folder = tmp_path / out
        found = main(["eval", *line.split(), *words, *given, "--output_dir", str(folder)])
        streams = capsys.readouterr()
        assert found == status, streams.err
        return Done(found, streams.out, streams.err, folder)

    return run
