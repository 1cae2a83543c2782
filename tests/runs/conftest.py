"""The product as a user meets it: a command line in, an exit status, two streams and a directory out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.conftest import ROOT
from xpo.cli import main
from xpo.train.record import RunRecord


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    status: int
    out: str = field(repr=False)  # it may hold rows, which a failing test must not show
    err: str
    folder: Path

    @property
    def record(self) -> RunRecord:
        return RunRecord.load(self.folder)

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "history.jsonl").read_text().splitlines()]

    @property
    def said(self) -> list[str]:
        """What xpo said about the rows."""
        lines: list[str] = self.record.data["lines"]
        return lines


#: ``train("--algo dpo ...", dataset=rows_or_path)`` runs the command in this process.
Train = Callable[..., Done]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model on disk, with a tokenizer of one token a word."""
    return tiny.saved(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a chat template."""
    return tiny.saved_for_chat(tmp_path_factory.mktemp("tiny") / "chat")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write rows, or lines as they are, as JSONL."""

    def make(rows: Sequence[Any], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return make


@pytest.fixture
def train(tmp_path: Path, model: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> Train:
    """Run ``xpo train`` on the tiny model, two steps of four rows; later flags win over these."""

    def run(line: str = "", *more: str | Path, data: Any = None, out: str = "out", base: Any = model) -> Done:
        folder = tmp_path / out
        words = ["train", "--output_dir", str(folder), "--use_cpu", "--max_steps", "2", "--save_strategy", "no"]
        words += ["--per_device_train_batch_size", "4", "--learning_rate", "1e-3", "--report_to", "none"]
        words += ["--eval_prompts", "0", "--logging_steps", "1"]
        if base is not None:
            words += ["--model_name_or_path", str(base)]
        if data is not None:
            words += ["--dataset_name", str(data if isinstance(data, str | Path) else write(data))]
        capsys.readouterr()
        status = main([*words, *line.split(), *map(str, more)])
        streams = capsys.readouterr()
        return Done(status, streams.out, streams.err, folder)

    return run


@pytest.fixture
def trained(train: Train) -> Train:
    """The same, and it must work."""

    def run(*arguments: Any, **options: Any) -> Done:
        done = train(*arguments, **options)
        assert done.status == 0, done.err
        return done

    return run


def command(words: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None) -> Done:
    """Run ``python -m xpo`` as a process of its own, in ``folder``."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    given = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, **(environment or {})}
    given.pop("PYTHONWARNINGS", None)
    call = [sys.executable, "-m", "xpo", *map(str, words)]
    done = subprocess.run(call, cwd=folder, env=given, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr, folder / "out")
