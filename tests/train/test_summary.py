"""The table before / after, and the intervals in it."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
from rich.console import Console

from xpo.train.intervals import mean_interval, paired_interval, win_interval
from xpo.train.record import Cost, Row, RunRecord, Sample
from xpo.train.summary import cells, cost, duration, notes, number, print_summary


def printed(record: RunRecord, **options: Any) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=str(options.pop("encoding", "utf-8")))
    print_summary(record, console=Console(file=stream, **options))
    stream.seek(0)
    return stream.read()


def test_mean_interval_is_the_normal_one() -> None:
    estimate = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 1.959963984540054 * math.sqrt(2.5 / 5)
    assert estimate == pytest.approx((3.0, 3.0 - half, 3.0 + half))
    assert estimate.interval == (estimate.low, estimate.high)


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert mean_interval([2.0]).value == 2.0
    assert mean_interval([2.0]).interval is None
    assert math.isnan(mean_interval([]).value)
    assert math.isnan(win_interval(0, 0).value)


@pytest.mark.parametrize(
    ("wins", "losses", "expected"),
    [
        (8, 2, (0.8, 0.490162, 0.943318)),
        (0, 10, (0.0, 0.0, 0.277533)),
        (10, 0, (1.0, 0.722467, 1.0)),
        (50, 50, (0.5, 0.403832, 0.596168)),
    ],
)
def test_win_interval_is_wilsons(wins: int, losses: int, expected: tuple[float, float, float]) -> None:
    assert win_interval(wins, losses) == pytest.approx(expected, abs=2e-6)


def test_a_tie_is_half_a_win() -> None:
    assert win_interval(3, 3, 4) == win_interval(5, 5)


def test_paired_interval_forgets_what_both_have_in_common() -> None:
    before = [1.0, 10.0, 100.0]
    estimate = paired_interval(before, [value + 2.0 for value in before])
    assert estimate == pytest.approx((2.0, 2.0, 2.0))
    with pytest.raises(ValueError, match="1 before, 2 after"):
        paired_interval([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("value", "unit", "sign", "text"),
    [
        (0.6123, "%", False, "61.2%"),
        (0.1, "%", True, "+10.0 pp"),
        (None, "%", False, "–"),
        (math.nan, "", False, "–"),
        (3 * 2**30, "bytes", False, "3.00 GiB"),
        (5 * 2**20, "bytes", False, "5 MiB"),
        (12345.6, "", False, "12,346"),
        (-123.45, "", True, "-123.5"),
        (0.00001, "", False, "1.0e-05"),
        (0.0, "", False, "0.000"),
    ],
)
def test_number(value: float | None, unit: str, sign: bool, text: str) -> None:
    assert number(value, unit, sign) == text


def test_duration() -> None:
    assert [duration(s) for s in (3.21, 59.99, 119.7, 7260)] == ["3.2 s", "60.0 s", "2 min 0 s", "2 h 1 min"]


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("accuracy", 0.5, 0.6, "%", "up"), "better"),
        (Row("accuracy", 0.6, 0.5, "%", "up"), "worse"),
        (Row("kl", 0.0, 1.0, "nats", "down"), "worse"),
        (Row("length", 10, 20), ""),
        (Row("accuracy", 0.5, 0.5, "%", "up"), "same"),
        (Row("accuracy", None, 0.6, "%", "up"), ""),
        (Row("win rate", 0.5, 0.6, "%", "up", interval_after=(0.45, 0.75)), "same"),
        (Row("win rate", 0.5, 0.7, "%", "up", interval_after=(0.55, 0.85)), "better"),
        (Row("reward", 1.0, 1.2, "", "up", (0.5, 1.5), (0.7, 1.7)), "same"),
        (Row("reward", 1.0, 1.2, "", "up", (0.5, 1.5), (0.7, 1.7), (0.1, 0.3)), "better"),
        (Row("reward", 1.0, 1.2, "", "up", interval_change=(-0.1, 0.5)), "same"),
    ],
)
def test_verdict_asks_the_interval(row: Row, verdict: str) -> None:
    assert cells(row).verdict == verdict


def test_cells() -> None:
    row = Row("KL", 0.0, 3.25, "nats", "down", interval_after=(3.0, 3.5))
    assert cells(row)[:4] == ("KL (nats) ↓", "0.000", "3.25 [3.00, 3.50]", "+3.25")
    assert cells(Row("win rate", None, 0.5, "%", "up", interval_before=(0.1, 0.2)))[1:4] == ("–", "50.0%", "")


def test_notes_name_the_rows_they_are_about() -> None:
    rows = [Row("a", None, None, note="no split"), Row("b", None, None, note="no split"), Row("c", 1, 2)]
    assert notes(rows) == ["a, b: no split"]


def test_cost_leaves_out_what_was_not_measured() -> None:
    record = RunRecord("0", "dpo", cost=Cost(steps=1200, seconds=3.0, peak_memory_bytes=2**30))
    assert cost(record) == [("steps", "1,200"), ("time", "3.0 s"), ("peak memory", "1.00 GiB")]


def test_piped_output_cuts_nothing() -> None:
    completion = "word " * 400
    name = "a rather long name of something that was measured " * 3
    rows = [Row(name, 1, 2, "tokens", None, (0, 2), (1, 3)), Row("accuracy", None, None, "%", note="pass --eval_size")]
    record = RunRecord("0", "dpo", comparison=rows, samples=[Sample("p", completion, "[bold]x[/bold]")], cost=Cost(9))
    text = printed(record)
    assert "…" not in text
    assert name.strip() in text
    assert text.count("word") == 400
    assert "[bold]x[/bold]" in text
    assert "accuracy: pass --eval_size" in text
    assert max(map(len, text.splitlines())) >= 100


def test_a_terminal_gets_its_width_and_the_start_of_a_long_completion() -> None:
    record = RunRecord("0", "dpo", comparison=[Row("reward", 1, 2)], samples=[Sample("p", "", "x" * 5000)])
    text = printed(record, force_terminal=True, width=70, no_color=True, color_system=None)
    assert "(empty)" in text
    assert text.count("x") < 700
    assert "run.json" in text


def test_a_completion_cannot_steer_the_terminal() -> None:
    text = printed(RunRecord("0", "dpo", samples=[Sample("p", "a\x1b[31mb\x07\ud800", "c\td")]))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "c    d" in text


def test_output_that_is_not_unicode() -> None:
    record = RunRecord("0", "dpo", comparison=[Row("kl", None, 1.0, better="down")], samples=[Sample("é", "字", "x")])
    text = printed(record, encoding="ascii")
    assert "kl (down)" in text
    assert "?" in text
