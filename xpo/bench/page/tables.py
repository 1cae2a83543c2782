"""The tables of the page: those of ``table.md``, with the reason beside whatever is not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xpo.bench.failure import shown
from xpo.bench.notes import name_of
from xpo.bench.page.grid import head, row, table, value
from xpo.bench.page.markup import Markup, Part, joined, name, tag
from xpo.bench.page.methods import Method, glyph
from xpo.bench.page.points import title
from xpo.bench.scores import PRICES, Column, main_column
from xpo.bench.summary import START, Line, Summary
from xpo.bench.table import LEGEND, number, settings
from xpo.train.marked import EQUAL

#: Methods that the headline names at most.
_NAMED = 6


def quality(summary: Summary, records: Mapping[str, Any], methods: Sequence[Method]) -> Markup:
    """What methods achieve."""
    grids = any(method.line.setting for method in methods)
    main = main_column(records).key
    heads = [head("method", "method"), head("setting", "setting") if grids else None, head("seeds", "seeds")]
    heads += [head(one.key, title(one), one.better, one.key == main, one.note) for one in summary.columns]
    if not summary.columns:  # nothing is finished, and all there is to say is why
        heads.append(tag("th", "state", scope="col"))
    start = [_start(line, summary, grids) for line in summary.lines if line.is_start]
    rows = [_method(method, summary, records, grids) for method in methods]
    caption = "What methods achieve: means over prompts and seeds, with 95 % intervals"
    return table("quality", caption, heads, start, rows)


def headline(summary: Summary, records: Mapping[str, Any]) -> Markup | None:
    """Who comes first, and who cannot be told from it; None where nothing is finished."""
    column = main_column(records)
    found = [(line.method, line.numbers.get(column.key)) for line in summary.lines]
    best = [(method, one) for method, one in found if one and one.mark == "best"]
    if not best:
        return None
    equal = [method for method, one in found if one and one.mark == "equal"]
    names = [name(", ".join(method for method, _ in best)), f", {number(best[0][1], column)[0]}. "]
    rest = f" and {len(equal) - _NAMED} more" if len(equal) > _NAMED else ""
    others = [f"Not distinguishable from it ({EQUAL}): ", name(", ".join(equal[:_NAMED])), f"{rest}."] if equal else []
    return tag("p", f"Highest {title(column)}: ", *names, *others, class_="lead")


def legend(summary: Summary) -> Markup:
    """What marks and columns mean."""
    found = [part for one in summary.columns for part in (tag("dt", one.title), tag("dd", one.note))]
    return joined(tag("p", LEGEND), tag("dl", *found, class_="meaning"))


def costs(methods: Sequence[Method]) -> Markup:
    """What training took."""
    heads = [head("method", "method"), *(head(one.key, one.title, one.better) for one in PRICES)]
    rows = []
    for method in methods:
        found = [(price, method.line.prices.get(price.key)) for price in PRICES]
        texts = [(price.key, "" if one is None else f"{one:,.{price.digits}f}", one) for price, one in found]
        rows.append(row(method, *(value(*text) for text in texts)))
    caption = "What training took: means over the cells of a line; times and memory differ from one time to the next"
    return table("costs", caption, heads, [], rows)


def tried(summary: Summary, records: Mapping[str, Any], methods: Sequence[Method]) -> Markup | None:
    """All settings, where several were tried."""
    if not summary.tried:
        return None
    names, *found = settings(summary.tried, records)
    by_name = {method.name: method for method in methods}
    rows = []
    for one, (_, (setting, _), (seeds, _), (score, _)) in zip(summary.tried, found, strict=True):
        words = tag("strong", f"{setting} (chosen)") if one.chosen else setting
        exact = one.score.value if one.score else None
        cells = (tag("td", words, data_k="1"), value("2", seeds, one.seeds), value("3", score, exact))
        rows.append(row(by_name[one.method], *cells))
    caption = "Settings that were tried: the score on validation prompts, by which alone they are chosen"
    return table("tried", caption, [head(str(number), text) for number, (text, _) in enumerate(names)], [], rows)


def listed(identity: str, lines: Sequence[str]) -> Markup:
    """A list of lines."""
    return tag("ul", *(tag("li", name(line)) for line in lines), id=identity, class_="lines")


def _start(line: Line, summary: Summary, grids: bool) -> Markup:
    blank = [tag("td", data_k=key) for key in ("setting", "seeds")[not grids :]]
    who = tag("th", glyph(None), START, scope="row")
    return tag("tr", who, *blank, *_numbers(line, summary.columns), class_="start")


def _method(method: Method, summary: Summary, records: Mapping[str, Any], grids: bool) -> Markup:
    line, why = method.line, [name(one) for one in _reasons(records, method.line)]
    seeds: Part = f"{line.seeds}/{line.of}"
    if line.state == "part":
        seeds = tag("details", tag("summary", seeds), tag("ul", *(tag("li", one) for one in why)))
    before = [tag("td", line.setting, data_k="setting") if grids else None]
    before.append(tag("td", seeds, data_k="seeds", data_v=line.seeds))
    if line.state in ("done", "part"):
        return row(method, *before, *_numbers(line, summary.columns))
    words = tag("strong", "failed" if line.state == "failed" else "not run yet")
    told = tag("td", words, *(tag("p", one) for one in why), colspan=len(summary.columns) or 1, class_="absent")
    return row(method, *before, told)


def _numbers(line: Line, columns: Sequence[Column]) -> list[Markup]:
    found = [(column, line.numbers.get(column.key)) for column in columns]
    return [
        value(column.key, number(one, column)[0], one.value if one else None, one.mark if one else "")
        for column, one in found
    ]


def _reasons(records: Mapping[str, Any], line: Line) -> list[str]:
    """Why a line rests on fewer cells than there are."""
    mine = [cell for cell in records["cells"] if cell["method"] == line.method]
    if line.state == "part":
        mine = [cell for cell in mine if cell["setting"] == line.setting]
    failed = [f"{_which(cell)} failed: {shown(cell['failed'])}" for cell in mine if cell["status"] == "failed"]
    return failed + [f"{_which(cell)} has not been run" for cell in mine if cell["status"] == "missing"]


def _which(cell: Mapping[str, Any]) -> str:
    return name_of(cell).removeprefix(f"{cell['method']}, ")
