"""What figures are made of: points, curves that are thinned, scales and places of names; and how small that stays."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.bench.pages import cell, drawn, many, read, records
from xpo.bench.curves import POINTS, curves_of, thinned
from xpo.bench.page.courses import courses_of, first_metric, metrics_of
from xpo.bench.page.methods import FEW, FIRST, methods_of
from xpo.bench.page.points import frontier, points
from xpo.bench.page.scale import apart, labels, span, ticks
from xpo.bench.summary import summarise
from xpo.errors import SettingError
from xpo.train.marked import Number


def test_points_are_the_numbers_of_the_table_and_the_frontier_is_beaten_by_none() -> None:
    body = many(20, 2, 4)
    summary = summarise(body)
    methods = methods_of(summary)
    kl, reward = (next(one for one in summary.columns if one.key == key) for key in ("kl", "mean_reward"))
    some = points(summary, body, methods, kl, reward)
    assert len(some) == 1 + 20 * 3
    means = [one for one in some if one.seed is None]
    for one in means:
        line = one.method.line if one.method else summary.lines[0]
        assert (one.x, one.y.value, one.y.low) == (
            Number(line.numbers["kl"].value, line.numbers["kl"].low, line.numbers["kl"].high),
            line.numbers["mean_reward"].value,
            line.numbers["mean_reward"].low,
        )
    best = frontier(some)
    pairs = [(one.x.value or 0.0, one.y.value or 0.0) for one in means]

    def beaten(x: float, y: float) -> bool:
        return any(a <= x and b >= y and (a, b) != (x, y) for a, b in pairs)

    assert {(one.x.value, one.y.value) for one in best} == {pair for pair in pairs if not beaten(*pair)}
    assert best[0].method is None  # the start has moved nowhere
    found = read(drawn(body))
    figure = found.one("svg", id="kl-figure")
    assert len(figure.all("g", class_="cell")) == 40
    assert len(figure.all("path", class_="bar")) == len(figure.all("g", class_="mean")) == 20
    told = figure.one("g", class_="origin").one("title").text
    assert re.fullmatch(r"start: mean reward -?\d\.\d\d \[-?\d\.\d\d, -?\d\.\d\d\]; KL, nats 0\.00", told)


def test_methods_differ_in_more_than_colour_and_many_are_grey_until_asked_for() -> None:
    methods = methods_of(summarise(many(60, 1, 2)))
    looks = [(one.style.split()[1:3], one.shape) for one in methods]
    assert len({(tuple(style), shape) for style, shape in looks}) == 60
    assert len({shape for _, shape in looks[:8]}) == 8
    assert [one.picked for one in methods] == [True] * FIRST + [False] * (60 - FIRST)
    assert not any(one.picked for one in methods_of(summarise(many(FEW, 1, 2))))


def test_the_page_of_many_methods_stays_small() -> None:
    text = drawn(many(60, 3, POINTS))
    assert len(text) < 2_500_000
    plenty = many(2, 1, POINTS)
    assert [len(course.values) for course in courses_of(plenty, methods_of(summarise(plenty)))] == [POINTS] * 6


def test_histories_are_thinned_to_means_of_neighbours(tmp_path: Path) -> None:
    values = [float((7 * number) % 11) for number in range(500)]
    lines = [{"loss": value, "step": number + 1, "epoch": 0.1, "name": "x"} for number, value in enumerate(values)]
    lines[250]["loss"] = None  # what is not finite is null in a history
    lines[7]["once"] = 1.0
    lines.append({"train_runtime": 3.0, "train_loss": 0.5, "total_flos": 0.0, "step": 500})
    (tmp_path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = curves_of(tmp_path)
    assert list(found) == ["loss"]
    assert len(found["loss"]["values"]) == 100 <= POINTS
    assert found["loss"]["steps"] == list(range(5, 501, 5))
    wanted = [sum(values[first : first + 5]) / 5 for first in range(0, 500, 5)]
    wanted[50] = math.nan
    assert [math.nan if one is None else one for one in found["loss"]["values"]] == pytest.approx(wanted, nan_ok=True)
    assert thinned([(1, 2.0), (2, 3.0)]) == {"steps": [1, 2], "values": [2.0, 3.0]}
    assert curves_of(tmp_path / "none") == {}


@pytest.mark.parametrize("text", ['{"loss": 1', "[1]\n", '{"loss": 1, "step": 1}\nnothing\n'])
def test_a_history_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "history.jsonl").write_text(text)
    with pytest.raises(SettingError, match=r"history\.jsonl: cannot be read .*; remove it"):
        curves_of(tmp_path)


def test_the_mean_of_curves_is_taken_where_all_are() -> None:
    first, second = cell("alpha", 0), cell("alpha", 1)
    first["curves"] = {"loss": {"steps": [1, 5, 10, 20], "values": [4.0, 3.0, None, 1.0]}}
    second["curves"] = {"loss": {"steps": [2, 6, 10, 15], "values": [2.0, 6.0, 8.0, 9.0]}}
    body = records([first, second])
    one, two, mean = courses_of(body, methods_of(summarise(body)))
    assert (one.seed, two.seed, mean.seed) == (0, 1, None)
    assert (mean.steps, mean.values) == ([5, 10], [(3.0 + 5.0) / 2, None])
    assert metrics_of([one, two, mean]) == {"loss": 2}
    assert first_metric({"loss": 9, "rewards/chosen": 3, "rewards/accuracies": 2}) == "rewards/accuracies"
    assert first_metric({"loss": 9, "reward": 3, "rewards/chosen": 2}) == "reward"
    assert first_metric({"loss": 9, "grad_norm": 9}) == "loss"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 7.9), (1e-7, 3e-7), (-5e6, 9e6), (0.1, 0.10001), (41, 43)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 8
    assert all(low <= one <= high for one in found)
    gaps = [b - a for a, b in pairwise(found)]
    assert max(gaps) == pytest.approx(min(gaps))
    texts = labels(found)
    assert len({*texts}) == len(texts)
    assert [float(text.replace("\N{MINUS SIGN}", "-")) for text in texts] == pytest.approx(found, rel=0.01, abs=1e-12)


def test_frames_show_points_and_as_much_of_intervals_as_leaves_them_room() -> None:
    assert span([0, 10]) == (-0.5, 10.5)
    assert span([0, 10], [-1, 12]) == (-1.65, 12.65)
    low, high = span([0, 10], [-1000, 1000])
    assert -5 < low < 0
    assert 10 < high < 15
    for one in (0.0, 3.0, -2.0):
        low, high = span([one])
        assert low < one < high


def test_names_are_moved_apart_and_stay_inside() -> None:
    found = apart([10, 11, 12, 90], 5, 0, 100)
    assert found == [10, 15, 20, 90]
    found = apart([98, 99, 100], 5, 0, 100)
    assert found == [90, 95, 100]
    assert apart([], 5, 0, 100) == []
