"""The end of a run: the table before / after and a few completions side by side."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeGuard

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from xpo.train.record import Interval, Row, RunRecord, Sample

Verdict = Literal["better", "worse", "same", ""]

MISSING = "–"
STYLES: dict[Verdict, str] = {"better": "green", "worse": "red", "same": "dim", "": ""}
LEGEND = "↑ higher is better, ↓ lower is better, [ ] 95% interval, ≈ the interval allows for no change"
WIDTH = 100  # of output that is not a terminal: at least this, and as much as the table takes
LONG = 600  # characters of a completion shown on a terminal


class Cells(NamedTuple):
    """A row as text, and whether its change is an improvement."""

    name: str
    before: str
    after: str
    change: str
    verdict: Verdict


def cells(row: Row) -> Cells:
    """Format ``row``; a change whose interval allows for none has the verdict ``same``."""
    unit = f" ({row.unit})" if row.unit not in ("", "%", "bytes") else ""
    direction = {"up": " ↑", "down": " ↓", None: ""}[row.better]
    before, after = number(row.before, row.unit), number(row.after, row.unit)
    change = ""
    verdict: Verdict = ""
    if known(row.before) and known(row.after):
        difference = row.after - row.before
        same = _same(row)
        change = ("≈ " if same else "") + number(difference, row.unit, sign=True) + _span(row.interval_change, row.unit)
        if same or difference == 0:
            verdict = "same"
        elif row.better is not None:
            verdict = "better" if (difference > 0) == (row.better == "up") else "worse"
    return Cells(
        row.name + unit + direction,
        before + _span(row.interval_before, row.unit) * known(row.before),
        after + _span(row.interval_after, row.unit) * known(row.after),
        change,
        verdict,
    )


def known(value: float | None) -> TypeGuard[float]:
    """Whether there is a number to show."""
    return value is not None and math.isfinite(value)


def number(value: float | None, unit: str = "", sign: bool = False) -> str:
    """``value`` for people: shares in percent, bytes in GiB, others with about three digits; ``–`` when missing."""
    if not known(value):
        return MISSING
    plus = "+" if sign else ""
    if unit == "%":
        return f"{100 * value:{plus}.1f}" + (" pp" if sign else "%")
    if unit == "bytes":
        return f"{value / 2**30:{plus}.2f} GiB" if abs(value) >= 2**30 else f"{value / 2**20:{plus}.0f} MiB"
    size = abs(value)
    if size >= 1000:
        return f"{value:{plus},.0f}"
    if size and size < 0.001:
        return f"{value:{plus}.1e}"
    return f"{value:{plus}.{1 if size >= 10 else 2 if size >= 1 else 3}f}"


def duration(seconds: float) -> str:
    """``seconds`` for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def clean(text: str) -> str:
    """A model's ``text`` without the control characters and lone surrogates that could upset a terminal."""
    text = text.replace("\r\n", "\n").replace("\t", "    ").strip()
    shown = (c if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in text)
    return "".join(shown) or "(empty)"


def notes(rows: Sequence[Row]) -> list[str]:
    """The notes of ``rows``, each once, with the names it is about."""
    about: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            about.setdefault(row.note, []).append(row.name)
    return [f"{', '.join(names)}: {note}" for note, names in about.items()]


def cost(record: RunRecord) -> list[tuple[str, str]]:
    """What the run cost, as (name, value); what was not measured is left out."""
    spent = record.cost
    counts = (("steps", spent.steps), ("tokens", spent.tokens))
    lines = [(name, f"{count:,}") for name, count in counts if count is not None]
    if spent.reference_known:
        lines.append(
            (
                "reference",
                f"{spent.reference_known:,} of {spent.reference_known + (spent.reference_scored or 0):,} cached",
            )
        )
    if spent.seconds is not None:
        lines.append(("time", duration(spent.seconds)))
    measured = (
        ("tokens/s", spent.tokens_per_second, ""),
        ("sampled tokens/s", None if spent.sampling is None else spent.sampling["tokens_per_second"], ""),
        ("peak memory", spent.peak_memory_bytes, "bytes"),
        ("peak GPU memory", spent.peak_gpu_memory_bytes, "bytes"),
    )
    return lines + [(name, number(value, unit)) for name, value, unit in measured if known(value)]


def print_summary(record: RunRecord, samples: int = 2, console: Console | None = None) -> None:
    """Print the table, all notes and the first completions to stdout, cutting nothing when it is not a terminal."""
    console = console or Console(highlight=False)
    table = _table(record, console)
    if not console.is_terminal:
        needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
        console.width = max(WIDTH, needed)
    console.print(table)
    for line in [*([LEGEND] if record.comparison else []), *notes(record.comparison)]:
        console.print(_text(line, console, "dim"), soft_wrap=not console.is_terminal)
    for line in record.notes:
        console.print(_text(f"note: {line}", console, "yellow"), soft_wrap=not console.is_terminal)
    if record.samples[:samples]:
        console.print()
        console.print(_side_by_side(record.samples[:samples], console))


def _table(record: RunRecord, console: Console) -> Table:
    table = Table(title=_text(f"{record.algorithm}: before and after", console, "bold"), title_justify="left")
    table.add_column("")
    for name in ("before", "after", "change"):
        table.add_column(name, justify="right", overflow="fold")
    for row in map(cells, record.comparison):
        style = STYLES[row.verdict]
        table.add_row(*(_text(text, console) for text in row[:3]), _text(row.change, console, style))
    table.add_section()
    for name, value in cost(record):
        table.add_row(name, "", _text(value, console), "")
    return table


def _side_by_side(samples: Sequence[Sample], console: Console) -> Table:
    table = Table(show_lines=True, expand=True)
    for name, ratio in (("prompt", 2), ("before", 3), ("after", 3)):
        table.add_column(name, ratio=ratio, overflow="fold")
    for sample in samples:
        texts = [clean(text) for text in (sample.prompt, sample.before, sample.after)]
        if console.is_terminal:
            texts = [text if len(text) <= LONG else text[:LONG] + " ... (whole in run.json)" for text in texts]
        table.add_row(*(_text(text, console) for text in texts))
    return table


def _text(text: str, console: Console, style: str = "") -> Text:
    """``text`` with nothing read as markup, in characters the output can encode."""
    if not console.encoding.lower().startswith("utf"):
        for sign, plain in (("–", "-"), ("↑", "(up)"), ("↓", "(down)"), ("≈", "~")):
            text = text.replace(sign, plain)
        text = text.encode(console.encoding, "replace").decode(console.encoding)
    return Text(text, style=style)


def _span(interval: Interval | None, unit: str) -> str:
    if interval is None or not all(map(known, interval)):
        return ""
    low, high = (number(end, unit).removesuffix("%") for end in interval)
    return f" [{low}, {high}]"


def _same(row: Row) -> bool:
    """Whether the intervals allow for no change: that of the change where there is one, else those of both sides."""
    if row.interval_change is not None:
        return row.interval_change[0] <= 0.0 <= row.interval_change[1]
    if row.before is None or row.after is None or (row.interval_before is None and row.interval_after is None):
        return False
    early = row.interval_before or (row.before, row.before)
    late = row.interval_after or (row.after, row.after)
    return early[0] <= late[1] and late[0] <= early[1]
