"""What a run shows on stderr."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from xpo.train.progress import ShowProgress, say


class Run:
    """A trainer's events, without a trainer."""

    def __init__(self, terminal: bool = False, main: bool = True, start: int = 0) -> None:
        self.stream = io.StringIO()
        console = Console(file=self.stream, force_terminal=terminal, width=120, color_system=None, _environ={})
        self.progress = ShowProgress(console)
        self.state = TrainerState(max_steps=4, global_step=start, is_world_process_zero=main)

    def tell(self, event: str, **given: Any) -> None:
        getattr(self.progress, event)(None, self.state, TrainerControl(), **given)

    def step(self, **logs: Any) -> None:
        self.state.global_step += 1
        self.tell("on_step_end")
        self.tell("on_log", logs=logs)

    def evaluate(self, **logs: Any) -> None:
        for _ in range(2):
            self.tell("on_prediction_step", eval_dataloader=[1, 2])
        self.tell("on_log", logs=logs)
        self.tell("on_evaluate")

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


def test_plain_lines_where_there_is_no_terminal() -> None:
    run = Run()
    run.tell("on_train_begin")
    run.step(**{"loss": 0.69314, "rewards/margins": 0.02, "learning_rate": 5e-5, "grad_norm": 1.0, "epoch": 0.5})
    run.evaluate(**{"eval_loss": 0.7, "eval_rewards/margins": 0.01, "eval_runtime": 3.0})
    for _ in range(3):
        run.step(loss="nan")
    run.tell("on_log", logs={"train_runtime": 1.0, "train_loss": 0.5})
    run.tell("on_train_end")
    assert len(run.lines) == 2
    assert run.lines[0].startswith("step 1/4  loss 0.6931  margin 0.02  lr 5e-05  eta 0:0")
    assert run.lines[1] == "eval  step 1/4  loss 0.7  margin 0.01"


def test_the_last_line_needs_no_eta() -> None:
    run = Run(start=3)
    run.tell("on_train_begin")
    run.step(loss=0.5, reward=1.0)
    assert run.lines == ["step 4/4  loss 0.5  reward 1"]


def test_evaluation_on_its_own_and_of_several_data_sets() -> None:
    run = Run()
    run.evaluate(eval_loss=0.5)
    run.evaluate(**{"eval_test_loss": 0.25, "eval_test_rewards/accuracies": 1.0})
    assert run.lines == ["eval  loss 0.5", "eval test  loss 0.25  accuracy 1"]


def test_a_bar_on_a_terminal() -> None:
    run = Run(terminal=True)
    with run.progress:
        run.tell("on_train_begin")
        run.step(loss=0.5, kl=0.125)
        bars = run.progress.bars
        assert bars is not None
        assert bars.tasks[0].completed == 1
        assert bars.tasks[0].fields["shown"] == "loss 0.5  kl 0.125"
        run.tell("on_prediction_step", eval_dataloader=[1, 2])
        assert [(task.description, task.completed, task.total) for task in bars.tasks[1:]] == [("eval", 1, 2)]
        run.tell("on_log", logs={"eval_loss": 0.25})
        run.tell("on_evaluate")
        assert len(bars.tasks) == 1
        run.tell("on_train_end")
    assert any("eval  step 1/4  loss 0.25" in line for line in run.lines)
    assert run.progress.bars is None


def test_a_resumed_run_starts_where_it_stands() -> None:
    run = Run(terminal=True, start=3)
    with run.progress:
        run.tell("on_train_begin")
        assert run.progress.bars is not None
        assert run.progress.bars.tasks[0].completed == 3


def test_an_exception_finds_the_terminal_in_order() -> None:
    run = Run(terminal=True)

    def die() -> None:
        with run.progress:
            run.tell("on_train_begin")
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        die()
    assert run.progress.bars is None
    assert run.stream.getvalue().endswith("\x1b[?25h")  # the cursor is shown again
    run.progress.close()


def test_other_ranks_are_silent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for terminal in (True, False):
        run = Run(terminal=terminal, main=False)
        run.tell("on_train_begin")
        run.step(loss=0.5)
        run.evaluate(eval_loss=0.5)
        run.tell("on_train_end")
        assert run.stream.getvalue() == ""
    monkeypatch.setenv("RANK", "1")
    say("reference: adapters off")
    assert capsys.readouterr() == ("", "")


def test_say_speaks_plainly_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    line = "adapters on [q_proj, v_proj] " + "x" * 300
    say(line)
    assert capsys.readouterr() == ("", line + "\n")


def test_attach_takes_the_place_of_what_transformers_shows() -> None:
    class Trainer:
        args = TrainingArguments(disable_tqdm=True, use_cpu=True)

        def __init__(self) -> None:
            self.callbacks: list[Any] = [ProgressCallback, PrinterCallback]

        def remove_callback(self, callback: Any) -> None:
            self.callbacks.remove(callback)

        def add_callback(self, callback: Any) -> None:
            self.callbacks.append(callback)

    trainer = Trainer()
    progress = ShowProgress.attach(trainer)
    assert trainer.callbacks == [progress]
    assert progress.plain
