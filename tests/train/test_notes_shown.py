"""Where the notes on a run are shown: when it ends, on its card and in its record."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests import tiny
from tests.train.madeup_runs import KEY
from xpo.cli import main
from xpo.train.advice import advice
from xpo.train.card import card
from xpo.train.record import Row, RunRecord
from xpo.train.summary import print_summary


def test_notes_are_printed_and_written_on_the_card() -> None:
    record = RunRecord("0", "dpo", comparison=[Row("reward", 1, 2)], notes=["Something [was] off."])
    stream = io.StringIO()
    print_summary(record, console=Console(file=stream))
    assert "note: Something [was] off." in stream.getvalue()
    assert "What was off:\n\n- Something [was] off." in card(record, type(tiny.algorithm("dpo")))
    assert "What was off" not in card(RunRecord("0", "dpo"), type(tiny.algorithm("dpo")))


def test_a_run_says_what_was_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command line: rows that contradict each other, and completions that are sampled."""
    rows = tiny.rows("pairs", 60)
    rows += [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[:20]]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["train", "--algo", "dpo", "--model", str(tiny.saved(tmp_path / "model")), "--use_cpu"]
    words += ["--max_steps", "2", "--eval_size", "5", "--eval_prompts", "4", "--output_dir", str(tmp_path / "out")]
    assert main([*words, "--dataset", str(tmp_path / "rows.jsonl")]) == 0
    [note] = RunRecord.load(tmp_path / "out").notes
    assert note.startswith("Data: ")
    assert "say the opposite of another row" in note
    assert f"note: {note}" in capsys.readouterr().out
    assert note in (tmp_path / "out" / "README.md").read_text()
    record = RunRecord.load(tmp_path / "out")
    assert {"mean length", "ended by itself"} <= {row.name for row in record.comparison}  # advice reads them
    assert KEY + "chosen_gain" in record.metrics
    assert record.data["survey"]["contradicted"] > 0.1


def test_records_without_a_survey_load(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"xpo_version": "0", "algorithm": "dpo"}')
    record = RunRecord.load(tmp_path)
    assert record.notes == []
    assert advice(record, [], tiny.algorithm("dpo")) == []
