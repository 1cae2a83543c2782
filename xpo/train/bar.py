"""How far a long piece of work is: a bar on a terminal, now and then a line elsewhere."""

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
        what: what is being done.
        total: how much there is of it.
        unit: what is counted, for lines; ``what`` if not given.
        done: how much of that an earlier start has done.
        told: what else is to be shown.
    """

    def __init__(
        self,
        what: str,
        total: int,
        console: Console | None = None,
        every: float = EVERY,
        *,
        unit: str = "",
        done: int = 0,
        told: str = "",
    ) -> None:
        self.what, self.total, self.every = what, total, every
        self.unit, self.done, self.told = unit, done, told
        self.console = console or STDERR
        self.bars: Progress | None = None
        self.task: TaskID | None = None
        self.shown = time.monotonic()

    def __enter__(self) -> Bar:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
            self.bars = Progress(*columns, TextColumn("{task.fields[told]}"), console=self.console, transient=True)
            self.task = self.bars.add_task(self.what, total=self.total, completed=self.done, told=self.told)
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.bars is not None:
            self.bars.stop()

    def step(self, count: int = 1, told: str = "") -> None:
        """So many more are done."""
        self.done += count
        if self.bars is not None and self.task is not None:
            self.bars.update(self.task, completed=self.done, told=told)
        elif time.monotonic() - self.shown >= self.every or self.done == self.total:
            self.shown = time.monotonic()
            count_of = (
                f"{self.unit} {self.done}/{self.total}" if self.unit else f"{self.what}  {self.done}/{self.total}"
            )
            self.console.print(Text(f"{count_of}  {told}".rstrip()), soft_wrap=True)
