"""The table as text: Markdown, LaTeX, CSV and for the terminal. All say the same, and failed cells are in each."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xpo.bench.choice import Tried
from xpo.bench.scores import LINE, PRICES, Column, main_column, names_of
from xpo.bench.summary import Line, Summary
from xpo.train.marked import Cells, Number, grid, precise

ARROWS = {"up": "↑", "down": "↓", None: ""}
#: What means something to LaTeX, or is in none of its plain fonts -> how it is written there.
_TEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "<": "$<$",
        ">": "$>$",
        "|": "$|$",
        "≈": "$\\approx$",
        "≥": "$\\geq$",
        "↑": "$\\uparrow$",
        "↓": "$\\downarrow$",
    }
)
LEGEND = (
    "95 % intervals over prompts and seeds. Bold: the best of a column; ≈: not distinguishable from it (paired t test "
    "over prompts and seeds, p ≥ 0.05 after Bonferroni). KL and length have no direction by themselves."
)


def markdown(summary: Summary, records: Mapping[str, Any]) -> str:
    """``table.md``."""
    parts = [*_heading("Methods compared", records), ""]
    parts += _grid(quality(summary))
    parts += ["", f"{LEGEND} {_meaning(summary)}".rstrip(), "", "## What training took", ""]
    parts += _grid(cost(summary))
    parts += ["", "Means over the cells of a line. Times and memory differ from one time to the next.", ""]
    if summary.tried:
        parts += ["## Settings that were tried", "", *_grid(settings(summary.tried, records)), ""]
        parts += ["Chosen by the score on validation prompts alone; the numbers above are of test prompts.", ""]
    if summary.failures:
        parts += ["## Failed", "", *(f"* {_text(f'{which}: {_one_line(why)}')}" for which, why in summary.failures), ""]
    if summary.notes:
        parts += ["## Notes", "", *(f"* {_text(note)}" for note in summary.notes), ""]
    return "\n".join(parts)


def latex(summary: Summary, records: Mapping[str, Any]) -> str:
    """``table.tex``: two tabulars for booktabs, and what failed as comments and a line below."""
    parts = []
    for rows, name in ((quality(summary), "quality"), (cost(summary), "cost")):
        parts += [f"% {name}", f"\\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}", "\\toprule"]
        lines = list(_latex_lines(rows))
        parts += [lines[0], "\\midrule", *lines[1:], "\\bottomrule", "\\end{tabular}", ""]
    parts.append(_tex(LEGEND))
    parts += [f"Failed: {_tex(f'{which}: {_one_line(why)}')}." for which, why in summary.failures]
    parts += [f"Note: {_tex(note)}." for note in summary.notes]
    return "\n".join(parts) + "\n"


def comma_separated(summary: Summary) -> str:
    """``table.csv``: a row a method; what differs from time to time comes last."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = [*LINE, *names_of(summary.columns)]
    prices = sorted(PRICES, key=lambda price: price.times)  # stable
    writer.writerow([*head, "failures", *(price.key for price in prices)])
    for line in summary.lines:
        row: list[Any] = [line.method, line.algo, line.setting, line.state, line.seeds, line.of]
        for column in summary.columns:
            number = line.numbers.get(column.key, Number())
            row += [*(precise(one) for one in (number.value, number.low, number.high)), number.mark]
        why = [f"{which}: {_one_line(reason)}" for which, reason in summary.failures if _of(which, line.method)]
        row += ["; ".join(why), *(precise(line.prices.get(price.key)) for price in prices)]
        writer.writerow(row)
    return out.getvalue()


def quality(summary: Summary) -> list[Cells]:
    """The table of what methods achieve, header first."""
    tried = any(line.setting for line in summary.lines)
    head: Cells = [("method", ""), *([("setting", "")] if tried else []), ("seeds", "")]
    head += [(f"{_title(column)} {ARROWS[column.better]}".strip(), "") for column in summary.columns]
    if not summary.columns:  # nothing is finished, and all there is to say is why
        head.append(("state", ""))
    rows = [head]
    for line in summary.lines:
        row: Cells = [(line.method, ""), *([(line.setting, "")] if tried else []), (_seeds(line), "")]
        row += [number(line.numbers.get(column.key), column, line.state) for column in summary.columns]
        if not summary.columns:
            row.append(("" if line.is_start else line.state, ""))
        rows.append(row)
    return rows


def cost(summary: Summary) -> list[Cells]:
    """The table of what training took, header first."""
    rows: list[Cells] = [[("method", ""), *((f"{one.title} {ARROWS[one.better]}".strip(), "") for one in PRICES)]]
    for line in summary.lines:
        if line.is_start:
            continue
        row: Cells = [(line.method, "")]
        for price in PRICES:
            value = line.prices.get(price.key)
            row.append(("" if value is None else f"{value:,.{price.digits}f}", ""))
        rows.append(row)
    return rows


def settings(tried: Sequence[Tried], records: Mapping[str, Any]) -> list[Cells]:
    """The table of all settings, header first."""
    column = main_column(records)
    rows: list[Cells] = [[("method", ""), ("setting", ""), ("seeds", ""), (f"{_title(column)}, validation", "")]]
    for one in tried:
        score = one.score
        text = "" if score is None else _interval(Number(*score), column)
        mark = "best" if one.chosen else ""
        rows.append([(one.method, ""), (one.setting or "its own", mark), (f"{one.seeds}/{one.of}", ""), (text, "")])
    return rows


def number(found: Number | None, column: Column, state: str = "done") -> tuple[str, str]:
    """A cell of the table of quality; a method without numbers says why."""
    if found is None:
        return (state if state in ("failed", "missing") else "", "")
    return _interval(found, column), found.mark


def _interval(found: Number, column: Column) -> str:
    scale = 100 if column.share else 1
    value, low, high = (
        "" if one is None or one != one else _fixed(scale * one, column.digits)
        for one in (found.value, found.low, found.high)
    )
    return f"{value} [{low}, {high}]" if low else value


def _fixed(value: float, digits: int) -> str:
    """A number without the sign of a zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def _title(column: Column) -> str:
    return f"{column.title}, %" if column.share else column.title


def _seeds(line: Line) -> str:
    return "" if line.is_start else f"{line.seeds}/{line.of}"


def _heading(title: str, records: Mapping[str, Any]) -> Iterator[str]:
    shared, start = records["shared"], records["start"]
    part = start["examined"]["test"]
    yield f"# {title}"
    yield ""
    by = shared["examined_by"]
    judge = by["judge"] or ", ".join(by["reward"] or []) or "nobody"
    yield (
        f"Model: {shared['model_name_or_path'] or 'testbed'}. Data: {shared['dataset_name'] or 'testbed'}. "
        f"{len(part['lengths'])} test prompts, judged by {judge}; seeds {', '.join(map(str, records['seeds']))}. "
        f"xpo {start['xpo_version']}, torch {start['versions']['torch']}, {start['device']['name']}."
    )


def _meaning(summary: Summary) -> str:
    return " ".join(f"{column.title[0].upper()}{column.title[1:]}: {column.note}." for column in summary.columns)


def _grid(rows: Sequence[Cells]) -> list[str]:
    return grid([[(_text(text), mark) for text, mark in row] for row in rows])


def _text(text: str) -> str:
    """Text that is no markup in Markdown, where HTML is."""
    return text.replace("<", "&lt;")


def _latex_lines(rows: Sequence[Cells]) -> Iterator[str]:
    for row in rows:
        yield " & ".join(_latex(cell) for cell in row) + " \\\\"


def _latex(cell: tuple[str, str]) -> str:
    text, mark = cell
    text = _tex(text)
    return f"\\textbf{{{text}}}" if mark == "best" and text else f"{text} $\\approx$" if mark == "equal" else text


def _tex(text: str) -> str:
    # Two hyphens would become a dash, and a bracket behind the end of a row an argument.
    text = text.translate(_TEX).replace("--", "-{}-")
    return f"{{{text[0]}}}{text[1:]}" if text[:1] in ("[", "*") else text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _of(which: str, method: str) -> bool:
    return which == method or which.startswith(f"{method}, ")
