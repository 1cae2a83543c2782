"""What a run shows on stderr while it works: its own lines, and a bar on a terminal or plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sized
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from xpo.train.machine import is_main

STDERR = Console(stderr=True, highlight=False)

#: Logged key -> its short name, in the order shown.
SHOWN = {
    "loss": "loss",
    "rewards/margins": "margin",
    "reward": "reward",
    "rewards/accuracies": "accuracy",
    "kl": "kl",
    "learning_rate": "lr",
}


def say(line: str) -> None:
    """Print one of xpo's own lines to stderr; silent on every rank but the first."""
    if is_main():
        STDERR.print(Text(line), soft_wrap=True)


class ShowProgress(TrainerCallback):  # type: ignore[misc]  # transformers is not followed, so its classes are Any
    """A progress bar on a terminal, a line per log entry elsewhere; only on the main process.

    Use it as a context manager around the work, so that an exception finds the bar closed and the terminal in order::

        with ShowProgress.attach(trainer):
            trainer.train()
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or STDERR
        self.plain = False
        self.bars: Progress | None = None
        self.steps: TaskID | None = None
        self.evaluation: TaskID | None = None
        self.began = (0, 0.0)  # step and time at which this process started to train

    @classmethod
    def attach(cls, trainer: Any, console: Console | None = None) -> ShowProgress:
        """Add a new one to ``trainer`` in place of the progress and the printing that transformers adds."""
        trainer.remove_callback(ProgressCallback)
        trainer.remove_callback(PrinterCallback)
        progress = cls(console)
        progress.plain = bool(trainer.args.disable_tqdm)
        trainer.add_callback(progress)
        return progress

    def __enter__(self) -> ShowProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was. May be called twice."""
        if self.bars is not None:
            self.bars.stop()
        self.bars = self.steps = self.evaluation = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Show the bar, from where a resumed run stands."""
        self.began = (state.global_step, time.monotonic())
        if bars := self._bars(state):
            self.steps = bars.add_task("train", total=state.max_steps, completed=state.global_step, shown="")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bars is not None and self.steps is not None:
            self.bars.update(self.steps, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the numbers: of training in the bar or on a line, of an evaluation always on a line."""
        prefix = _evaluation(logs or {})
        numbers = _numbers(logs or {}, prefix or "")
        if not state.is_world_process_zero or not numbers:
            return
        if prefix is None and self.bars is not None and self.steps is not None:
            self.bars.update(self.steps, completed=state.global_step, shown=numbers)
            return
        parts = [f"step {state.global_step}/{state.max_steps}", numbers] if self.began[1] else [numbers]
        if prefix is not None:
            parts.insert(0, prefix.rstrip("_").replace("_", " "))
        elif left := self._left(state):
            parts.append(f"eta {left}")
        self.console.print(Text("  ".join(parts)), soft_wrap=True)

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Show how far an evaluation is, within training or on its own."""
        if bars := self._bars(state):
            if self.evaluation is None:
                total = len(eval_dataloader) if isinstance(eval_dataloader, Sized) else None
                self.evaluation = bars.add_task("eval", total=total, shown="")
            bars.advance(self.evaluation)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take the evaluation's bar away."""
        self._evaluated()

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any
    ) -> None:
        """Take the prediction's bar away."""
        self._evaluated()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Leave the full bar on the screen."""
        self.close()
        self.began = (0, 0.0)

    def _bars(self, state: TrainerState) -> Progress | None:
        """The bars, started if need be; None where plain lines are shown, or nothing at all."""
        plain = self.plain or not self.console.is_terminal or self.console.is_dumb_terminal
        if plain or not state.is_world_process_zero:
            return None
        if self.bars is None:
            columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("eta"), TimeRemainingColumn())
            texts = (TextColumn("{task.description}"), TextColumn("{task.fields[shown]}"))
            self.bars = Progress(texts[0], *columns, texts[1], console=self.console)
            self.bars.start()
        return self.bars

    def _evaluated(self) -> None:
        if self.bars is not None and self.evaluation is not None:
            self.bars.remove_task(self.evaluation)
            self.evaluation = None
            if self.steps is None:
                self.bars.live.transient = True  # an evaluation on its own leaves no empty line
                self.close()

    def _left(self, state: TrainerState) -> str:
        """Estimated time left, as 1:02:03."""
        step, moment = self.began
        done = state.global_step - step
        if done <= 0 or state.global_step >= state.max_steps:
            return ""
        minutes, seconds = divmod(round((time.monotonic() - moment) / done * (state.max_steps - state.global_step)), 60)
        return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"


def _evaluation(logs: Mapping[str, Any]) -> str | None:
    """The prefix of an evaluation's keys, ``eval_`` or ``eval_<data set>_``; None for an entry of training."""
    if not any(key.startswith("eval_") for key in logs):
        return None
    if any(f"eval_{key}" in logs for key in SHOWN):
        return "eval_"
    named = (key.removesuffix("loss") for key in logs if key.startswith("eval_") and key.endswith("_loss"))
    return next(named, "eval_")


def _numbers(logs: Mapping[str, Any], prefix: str) -> str:
    found = ((short, logs.get(prefix + key)) for key, short in SHOWN.items())
    return "  ".join(f"{short} {value:.4g}" for short, value in found if isinstance(value, int | float))
