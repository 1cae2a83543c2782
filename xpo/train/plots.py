"""The metric history as a picture."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xpo.train.machine import is_main
from xpo.train.output import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, told apart by colour-blind readers; evaluation is dashed as well.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"


class Line(NamedTuple):
    """One logged key in a panel."""

    key: str
    label: str
    colour: str
    dashed: bool = False


class Panel(NamedTuple):
    """One set of axes."""

    title: str
    unit: str
    lines: tuple[Line, ...]


def _pair(key: str) -> tuple[Line, ...]:
    return Line(key, "train", BLUE), Line(f"eval_{key}", "eval", ORANGE, True)


PANELS = (
    Panel("Loss", "loss", _pair("loss")),
    Panel("Reward margin (chosen - rejected)", "implicit reward", _pair("rewards/margins")),
    Panel("Reward", "reward", _pair("reward")),
    Panel(
        "Log-probabilities",
        "nats",
        (
            Line("logps/chosen", "chosen", BLUE),
            Line("logps/rejected", "rejected", ORANGE),
            Line("logps", "completions", GREEN),
            Line("eval_logps/chosen", "chosen, eval", BLUE, True),
            Line("eval_logps/rejected", "rejected, eval", ORANGE, True),
            Line("eval_logps", "completions, eval", GREEN, True),
        ),
    ),
    Panel(
        "KL",
        "nats",
        (
            Line("kl", "to the reference, train", PINK),
            Line("eval_kl", "to the reference, eval", ORANGE, True),
            Line("kl_to_start", "to the start, on held-out prompts", BLUE, True),
        ),
    ),
)


def plot_history(log_history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], title: str) -> None:
    """Draw the panels that have data to a PNG file, whole or not at all; on rank 0 only.

    Args:
        log_history: the trainer's log entries, each with its ``step``.
        title: what ran, such as ``"simpo on org/model"``.
    """
    if not is_main():
        return
    # Drawing on a Figure of its own, not through pyplot: no display, no global state, nothing to close.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [(panel, found) for panel in PANELS if (found := _found(panel, log_history))]
    columns = 1 if len(drawn) < 2 else 2
    rows = max(1, math.ceil(len(drawn) / columns))
    # The font that comes with matplotlib: one from the user's own settings may be missing here.
    with rc_context({"font.family": "DejaVu Sans", "text.usetex": False}), warnings.catch_warnings():
        figure = Figure(figsize=(5.5 * columns, 0.5 + 3.2 * rows), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, parse_math=False, fontsize=12)
        for index, (panel, found) in enumerate(drawn, start=1):
            _draw(figure.add_subplot(rows, columns, index), panel, found)
        if not drawn:
            figure.text(0.5, 0.5, "no metrics were logged", ha="center", va="center", color="0.4")
        # A model's name may hold characters the font lacks: a box in the title, not a warning on the screen.
        warnings.filterwarnings("ignore", message="Glyph")
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png")


def _found(panel: Panel, log_history: Sequence[Mapping[str, Any]]) -> list[tuple[Line, list[float], list[float]]]:
    """(line, steps, values) of the lines that have a finite value. What is not finite is a gap."""
    found = []
    for line in panel.lines:
        entries = [entry for entry in log_history if "step" in entry and line.key in entry]
        steps = [float(entry["step"]) for entry in entries]
        values = [_finite(entry[line.key]) for entry in entries]
        if any(map(math.isfinite, values)):
            found.append((line, steps, values))
    return found


def _finite(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.nan


def _draw(axes: Axes, panel: Panel, found: list[tuple[Line, list[float], list[float]]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for line, steps, values in found:
        axes.plot(
            steps,
            values,
            color=line.colour,
            linestyle="--" if line.dashed else "-",
            # A line through one point, or to a gap on either side, is invisible without markers.
            marker="o" if len(values) <= 30 or not all(map(math.isfinite, values)) else None,
            markersize=3.5,
            linewidth=1.6,
            label=line.label,
        )
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel("step")
    axes.set_ylabel(panel.unit)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    first, last = axes.dataLim.intervalx
    if first == last:
        axes.set_xlim(first - 1, first + 1)  # or the ticks around a single step would be fractions
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(found) > 1 or found[0][0].dashed:
        axes.legend(fontsize=8, frameon=False)
