"""How far a suite is: a table that stays in place on a terminal, a line for each cell elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from heapq import heapify, heapreplace
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from xpo.bench.cell import Cell
from xpo.train.progress import STDERR
from xpo.train.tables import table


class Progress:
    """A context in which progress is shown.

    Args:
        cells: all of the suite.
        known: outcome of those that an earlier start has run: ``done`` or ``failed``.
        slots: cells that run at a time.
        took: seconds that cells of an earlier start took, by place; 0 where nobody knows.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        known: Mapping[str, str],
        slots: int,
        console: Console | None = None,
        took: Mapping[str, float] | None = None,
    ) -> None:
        self.cells = cells
        self.states = {cell.place: known.get(cell.place, "left") for cell in cells}
        self.slots = slots
        self.console = console or STDERR
        self.live: Live | None = None
        self.took = {place: seconds for place, seconds in (took or {}).items() if seconds > 0}
        self.began: dict[str, float] = {}

    def __enter__(self) -> Progress:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self.live = Live(get_renderable=self._table, console=self.console, refresh_per_second=2, transient=True)
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def started(self, cell: Cell) -> None:
        """A cell runs."""
        self.states[cell.place] = "running"
        self.began[cell.place] = time.monotonic()

    def ended(self, cell: Cell, seconds: float, result: str, why: str = "") -> None:
        """A cell has ended.

        Args:
            result: ``done`` or ``failed``.
            why: the reason, or what came of it.
        """
        self.states[cell.place] = result
        del self.began[cell.place]
        self.took[cell.place] = seconds
        if self.live is None:
            finished = sum(state in ("done", "failed") for state in self.states.values())
            told = f"{result}: {why}" if why else result
            left = f", about {clock(found)} left" if (found := self.left()) is not None else ""
            line = f"{finished} of {len(self.cells)}: {cell}: {told}, {clock(seconds)}{left}"
            self.console.print(Text(line), soft_wrap=True)

    def left(self) -> float | None:
        """Seconds until the last slot is free, if every cell takes what others of its method took.

        None before the first cell has ended, and at the end.
        """
        running = [cell for cell in self.cells if cell.place in self.began]
        waiting = [cell for cell in self.cells if self.states[cell.place] == "left"]
        expected = self._expected()
        if not expected or not (waiting or running):
            return None
        now = time.monotonic()
        busy = [max(expected[cell.method] - (now - self.began[cell.place]), 0.0) for cell in running]
        busy += [0.0] * (self.slots - len(busy))
        heapify(busy)
        for cell in waiting:
            heapreplace(busy, busy[0] + expected[cell.method])
        return max(busy)

    def _expected(self) -> dict[str, float]:
        """Seconds of a cell by method: the mean of those done; of a method without any, the mean over the others."""
        known: dict[str, list[float]] = {}
        # Cells that fail may do so at once, and count only as long as there are no others.
        for state in ("done", "failed"):
            for cell in self.cells:
                if self.states[cell.place] == state and cell.place in self.took:
                    known.setdefault(cell.method, []).append(self.took[cell.place])
            if known:
                break
        means = {method: sum(some) / len(some) for method, some in known.items()}
        typical = sum(means.values()) / len(means) if means else 0.0
        return {cell.method: means.get(cell.method, typical) for cell in self.cells} if means else {}

    def _table(self) -> Table:
        rows = []
        for method in dict.fromkeys(cell.method for cell in self.cells):
            mine = [self.states[cell.place] for cell in self.cells if cell.method == method]
            rows.append((method, *(str(mine.count(state) or "") for state in ("done", "running", "failed", "left"))))
        found = self.left()
        rows.append(("" if found is None else f"about {clock(found)} left", "", "", "", ""))
        return table(("method", "done", "running", "failed", "to do"), rows)


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
