"""How far labelling is: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from xpo.train.progress import STDERR

#: Seconds between two lines, where there is no terminal.
EVERY = 10.0


class Bar:
    """A context in which progress is shown.

    Args:
        total: prompts in all.
        done, rows: prompts that an earlier start has labelled, and the rows they brought.
    """

    def __init__(
        self, total: int, done: int, rows: int = 0, console: Console | None = None, every: float = EVERY
    ) -> None:
        self.total, self.done, self.rows, self.every = total, done, rows, every
        self.console = console or STDERR
        self.bars: Progress | None = None
        self.task: TaskID | None = None
        self.shown = time.monotonic()

    def __enter__(self) -> Bar:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            columns = (TextColumn("label"), BarColumn(20), MofNCompleteColumn(), TextColumn("eta"))
            told = TextColumn("{task.fields[rows]} rows")
            self.bars = Progress(*columns, TimeRemainingColumn(), told, console=self.console)
            self.task = self.bars.add_task("label", total=self.total, completed=self.done, rows=self.rows)
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def show(self, done: int, rows: int) -> None:
        """So many prompts are labelled, and brought so many rows."""
        if self.bars is not None and self.task is not None:
            self.bars.update(self.task, completed=done, rows=rows)
        elif time.monotonic() - self.shown >= self.every or done == self.total:
            self.shown = time.monotonic()
            self.console.print(Text(f"prompt {done}/{self.total}  {rows} rows"), soft_wrap=True)
