"""Tables as elements: heads that a script can sort by, cells that carry the number they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from xpo.bench.page.markup import Markup, Part, joined, name, tag
from xpo.bench.page.methods import Method, glyph, state
from xpo.bench.table import ARROWS
from xpo.train.marked import EQUAL

_DIRECTIONS = {"up": "higher is better", "down": "lower is better"}
_MARKS = {"best": "the best", "equal": "not distinguishable from the best"}


def table(identity: str, caption: str, heads: Sequence[Part], fixed: Sequence[Part], rows: Sequence[Part]) -> Markup:
    """A table in a box of its own that scrolls.

    Args:
        fixed: rows that stay on top however the others are sorted.
    """
    made = tag(
        "table",
        tag("caption", tag("span", caption)),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *fixed, class_="fixed") if fixed else None,
        tag("tbody", *rows, class_="rows"),
        id=identity,
    )
    return tag("div", made, class_="scroll", tabindex=0, role="region", aria_label=caption)


def head(
    key: str, text: str, better: Literal["up", "down"] | None = None, first: bool = False, note: str | None = None
) -> Markup:
    """The head of a column.

    Args:
        first: rows are in its order, the highest on top.
        note: what it is, for a pointer that rests on it.
    """
    arrow = both(ARROWS[better], _DIRECTIONS[better]) if better else None
    button = tag("button", text, arrow, type="button", title=note)
    return tag("th", button, scope="col", aria_sort="descending" if first else "none", data_k=key)


def row(method: Method, *cells: Part) -> Markup:
    """A row of a method, with its name as the head."""
    who = tag("th", glyph(method), name(method.name), state(method.line), scope="row", data_v=method.name)
    return tag("tr", who, *cells, data_m=method.index, class_=method.line.state)


def value(key: str, text: str, exact: float | None = None, mark: str = "") -> Markup:
    """A number and its interval, as ``75.0 [13.1, 98.4]``.

    Args:
        exact: what to sort by.
        mark: ``best``, ``equal`` or empty.
    """
    main, bracket, rest = text.partition(" [")
    said = both(EQUAL if mark == "equal" else "", _MARKS[mark]) if mark else None
    interval = joined(" ", tag("span", f"[{rest}", class_="interval")) if bracket else None
    return tag("td", tag("strong", main) if mark == "best" else main, said, interval, data_k=key, data_v=exact)


def both(seen: str, heard: str) -> Markup:
    """A sign for the eye, and words for a voice."""
    sign = tag("span", f"\u00a0{seen}", aria_hidden="true") if seen else None
    return joined(sign, tag("span", f", {heard}", class_="aside"))
