"""The figure of a record: mean true reward against KL to the start, nothing in it but what the record holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.frontier.methods import BEST_OF
from benchmarks.frontier.points import Point, front, points_of, start_of
from benchmarks.frontier.table import title_of
from xpo.train.output import replacing
from xpo.train.plots import BLUE, GREEN, ORANGE, PINK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Colour and marker of each method in turn, so that it is told apart without colours too.
LOOKS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PINK, "D"))
TICKS = (0, 0.25, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Draw a record to an SVG file; the same record gives the same file."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style = {"font.family": "DejaVu Sans", "text.usetex": False, "svg.hashsalt": "xpo", "svg.fonttype": "path"}
    with rc_context(style):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        for (name, _), (colour, marker) in zip(record["methods"].items(), LOOKS, strict=False):
            _method(axes, points_of(record, name), title_of(record, name), colour, marker)
        _best_of(axes, points_of(record, BEST_OF))
        start = start_of(record)
        if start is not None:
            axes.plot(
                [0], [start.value], marker="*", markersize=11, color="black", linestyle="", clip_on=False, label="start"
            )
        _axes(axes, record)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _method(axes: Axes, points: Sequence[Point], title: str, colour: str, marker: str) -> None:
    if not points:
        return
    line = front(points)
    axes.plot([one.kl.value for one in line], [one.reward.value for one in line], color=colour, linewidth=1.4)
    along = [one for one in points if not one.last]
    axes.plot(
        [one.kl.value for one in along],
        [one.reward.value for one in along],
        color=colour,
        marker=marker,
        markersize=4,
        markerfacecolor="white",
        linestyle="",
    )
    ends = [one for one in points if one.last]
    axes.errorbar(
        [one.kl.value for one in ends],
        [one.reward.value for one in ends],
        xerr=_ends([one.kl for one in ends]),
        yerr=_ends([one.reward for one in ends]),
        color=colour,
        marker=marker,
        markersize=6,
        linestyle="",
        elinewidth=0.9,
        label=title,
    )


def _best_of(axes: Axes, points: Sequence[Point]) -> None:
    if not points:
        return
    kl, rewards = [one.kl.value for one in points], [one.reward.value for one in points]
    axes.plot(
        kl, rewards, color="black", linestyle="--", marker=".", linewidth=1.2, label="best of n (upper bound of its KL)"
    )
    for one in points:
        axes.annotate(
            one.label.removeprefix("n = "),
            (one.kl.value, one.reward.value),
            textcoords="offset points",
            xytext=(-3, 5),
            ha="right",
            fontsize=8,
        )


def _ends(found: Sequence[Any]) -> list[list[float]]:
    return [[one.value - one.low for one in found], [one.high - one.value for one in found]]


def _axes(axes: Axes, record: Mapping[str, Any]) -> None:
    import numpy

    # What can be had at a KL grows like its square root.
    axes.set_xscale("function", functions=(lambda kl: numpy.sqrt(numpy.maximum(kl, 0)), numpy.square))
    most = max([one.kl.high for name in [*record["methods"], BEST_OF] for one in points_of(record, name)], default=1.0)
    axes.set_xlim(0, 1.08 * most)
    axes.set_xticks([tick for tick in TICKS if tick <= most])
    axes.get_xaxis().set_major_formatter("{x:g}")
    axes.set_xlabel("KL to the start, nats (square-root scale)")
    axes.set_ylabel("mean true reward of samples for held-out prompts")
    work = record["work"]
    axes.set_title(
        f"Reward against KL on the testbed: filled after {work['steps']} steps with 95 % intervals, hollow on the way",
        fontsize=10,
    )
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9, frameon=False, loc="lower right")
