"""What is seen while a suite runs: a table in place on a terminal, a line a cell elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from xpo.bench import live
from xpo.bench.cell import Cell
from xpo.bench.live import Progress, clock

CELLS = [Cell(method, method, {}, {}, seed) for seed in (0, 1) for method in ("dpo", "kto")]


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(live, "time", made)
    return made


def test_elsewhere_a_line_tells_of_each_cell_and_of_the_time_left(moment: Clock) -> None:
    out = io.StringIO()
    with Progress(CELLS, {CELLS[0].place: "done"}, 1, Console(file=out, width=200)) as progress:
        assert progress.left() is None
        for number, cell in enumerate(CELLS[1:]):
            progress.started(cell)
            moment.now += 30
            progress.ended(cell, 30, "failed" if number == 1 else "done", "no room" if number == 1 else "")
    assert out.getvalue().splitlines() == [
        "2 of 4: kto, seed 0: done, 0:30, about 1:00 left",
        "3 of 4: dpo, seed 1: failed: no room, 0:30, about 0:30 left",
        "4 of 4: kto, seed 1: done, 0:30",
    ]


def test_what_runs_counts_by_what_is_left_of_it(moment: Clock) -> None:
    progress = Progress(CELLS, {}, 2, Console(file=io.StringIO()))
    for cell in CELLS[:3]:
        progress.started(cell)
    progress.ended(CELLS[0], 40, "done")
    moment.now += 30
    assert progress.left() == pytest.approx(10 + 40)  # one waits until one of the two that run has ended


def test_methods_take_their_own_time_and_failures_say_nothing_of_it(moment: Clock) -> None:
    progress = Progress(CELLS, {}, 1, Console(file=io.StringIO()))
    for cell, seconds, state in ((CELLS[0], 100, "done"), (CELLS[1], 2, "failed")):
        progress.started(cell)
        progress.ended(cell, seconds, state)
    assert progress.left() == pytest.approx(100 + 100)  # of kto nothing is known but that it failed at once
    progress.started(CELLS[2])
    progress.ended(CELLS[2], 200, "done")
    assert progress.left() == pytest.approx(150)


def test_the_last_of_several_slots_is_waited_for(moment: Clock) -> None:
    progress = Progress(CELLS, {CELLS[0].place: "done", CELLS[2].place: "done"}, 4, None, {CELLS[0].place: 60.0})
    progress.started(CELLS[1])
    moment.now += 20
    assert progress.left() == pytest.approx(60)  # what ran before the suite was stopped counts, and slots are free
    progress.started(CELLS[3])
    moment.now += 10
    assert progress.left() == pytest.approx(50)


def test_on_a_terminal_there_is_a_row_a_method(moment: Clock) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    with Progress(CELLS, {CELLS[0].place: "failed"}, 1, console) as progress:
        progress.started(CELLS[1])
        shown = Console(file=io.StringIO(), width=100)
        shown.print(progress._table())
    text = shown.file.getvalue()  # type: ignore[attr-defined]  # it was made with StringIO
    assert [line.split() for line in text.splitlines()[2:4]] == [["dpo", "1", "1"], ["kto", "1", "1"]]
    assert "1 of 4" not in out.getvalue()


def test_times_are_read_as_on_a_clock() -> None:
    assert [clock(one) for one in (0.4, 61, 3723)] == ["0:00", "1:01", "1:02:03"]
