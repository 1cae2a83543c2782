"""Reward functions written for TRL, in a run: what they are handed, and where what they say ends up."""

from __future__ import annotations

import json
from pathlib import Path

from tests import tiny
from tests.runs.conftest import Train

REWARD = """
async def shaped(completions, trainer_state, log_metric, log_extra, **columns):
    log_metric("steps_done", trainer_state.global_step)
    log_metric("of", trainer_state.max_steps)
    log_extra("words", [len(text.split()) for text in completions])
    return [float(len(text)) for text in completions]

def rude(completions, log_metric, **columns):
    log_metric("reward", 1.0)
    return [float(len(text)) for text in completions]
"""


def test_what_functions_of_trl_are_handed(train: Train, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(REWARD)
    line = f"--algo rloo --max_completion_length 5 --reward {tmp_path}/judge.py:shaped"
    done = train(f"{line} --log_completions --log_completions_steps 1", data=tiny.rows("pairs", 12))
    assert done.status == 0, done.err
    steps = [entry for entry in done.history if "steps_done" in entry]
    assert [(entry["steps_done"], entry["of"]) for entry in steps] == [(0.0, 2.0), (1.0, 2.0)]
    looks = [json.loads(text) for text in (done.folder / "completions.jsonl").read_text().splitlines()]
    assert looks
    assert all(look["extra"] == {"words": len(look["completion"].split())} for look in looks)


def test_a_metric_cannot_take_the_place_of_another(train: Train, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(REWARD)
    done = train(
        f"--algo rloo --max_completion_length 5 --reward {tmp_path}/judge.py:rude", data=tiny.rows("pairs", 12)
    )
    assert done.status == 2
    assert "calls log_metric('reward', ...), and the log has that already" in done.err
