"""What is said where a run goes on from a checkpoint with other settings than the run that wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from xpo.train.flags import parse
from xpo.train.resumed import KEPT, TOLD, Telling, otherwise, told


def of(line: str, rows: str = "abc") -> dict[str, Any]:
    return told(parse(f"--algo dpo --use_cpu --report_to none --model a {line}".split()), rows)


def said(tmp_path: Path, line: str, rows: str = "abc") -> str:
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    state: Any = SimpleNamespace(global_step=3)
    Telling(of("--beta 0.2")).on_save(SimpleNamespace(output_dir=str(tmp_path)), state, None)
    return "\n".join(otherwise(folder, of(line, rows)))


def test_nothing_is_said_of_the_same_run_nor_of_what_decides_nothing(tmp_path: Path) -> None:
    same = "--beta 0.2 --eval_prompts 3 --sample_completions 0 --overwrite --logging_steps 3 --max_steps 40"
    assert said(tmp_path, same) == ""


def test_what_differs_is_named_with_what_it_was(tmp_path: Path) -> None:
    found = said(tmp_path, "--beta 0.9 --seed 7 --max_length 64 --gradient_accumulation_steps 2 --model b", rows="xyz")
    for part in (
        "--beta 0.9 (was 0.2)",
        "--seed 7 (was 42)",
        "--max_length 64 (was 1024)",
        "--gradient_accumulation_steps 2 (was 1)",
        "--model_name_or_path b (was a; the trained weights stay those of the checkpoint)",
        "the rows to learn from",
    ):
        assert part in found
    assert "stays, since" not in found


def test_what_the_optimiser_keeps_is_said_to_stay(tmp_path: Path) -> None:
    usual = of("")["learning_rate"]
    found = said(tmp_path, "--beta 0.2 --learning_rate 0.5 --weight_decay 0.1")
    assert f"--learning_rate {usual} (not 0.5), --weight_decay 0.0 (not 0.1) stays" in found
    assert "was" not in found
    assert set(KEPT) <= of("").keys()


def test_a_checkpoint_that_does_not_say_is_believed(tmp_path: Path) -> None:
    assert otherwise(tmp_path, of("--beta 0.9")) == []
    (tmp_path / TOLD).write_text(json.dumps({"beta": 0.9}))
    assert otherwise(tmp_path, of("--beta 0.9")) == []
