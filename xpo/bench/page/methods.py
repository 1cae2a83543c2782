"""What tells methods apart in figures: colour, shape and dash together, and the panel to show and highlight them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xpo.bench.page.markup import Markup, joined, name, tag
from xpo.bench.summary import START, Line, Summary

#: With more methods than this, figures show the first ``FIRST`` in colour and the others in grey until asked for.
FEW, FIRST = 12, 6


def _star(points: int, outer: float, inner: float) -> str:
    turns = [(outer if number % 2 == 0 else inner, math.pi * number / points) for number in range(2 * points)]
    return "M" + "L".join(f"{r * math.sin(a):.1f} {-r * math.cos(a):.1f}" for r, a in turns) + "z"


#: Eight shapes about the origin, as paths.
SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",
    "M-4.5-4.5h9v9h-9z",
    "M0-6L5.8 4.4h-11.6z",
    "M0-6.6L6 0 0 6.6-6 0z",
    "M0 6L5.8-4.4h-11.6z",
    "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
    _star(5, 7, 2.9),
    "M-5.5-3L-3-5.5 0-2.5 3-5.5 5.5-3 2.5 0 5.5 3 3 5.5 0 2.5-3 5.5-5.5 3-2.5 0z",
)
COLOURS, DASHES = 7, 5
#: The start: a ring with a dot, which no method has.
RING = "M-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0zM-2 0a2 2 0 1 0 4 0a2 2 0 1 0-4 0z"


@dataclass(frozen=True, eq=False)
class Method:
    """A method on the page.

    Attributes:
        index: its place in the table; 0 is the first after the start.
        many: there are more than ``FEW`` of them.
    """

    index: int
    line: Line
    many: bool

    @property
    def name(self) -> str:
        """What the suite calls it."""
        return self.line.method

    @property
    def style(self) -> str:
        """Classes of colour and dash. The numbers share no divisor, so 280 methods differ in one of the three."""
        return f"m c{self.index % COLOURS} d{self.index % DASHES}" + (" hot" if self.picked else "")

    @property
    def picked(self) -> bool:
        """Whether it is highlighted from the start."""
        return self.many and self.index < FIRST

    @property
    def shape(self) -> str:
        """The path of its marker."""
        return SHAPES[self.index % len(SHAPES)]


def methods_of(summary: Summary) -> list[Method]:
    """The methods of a table, best first."""
    lines = [line for line in summary.lines if not line.is_start]
    return [Method(number, line, len(lines) > FEW) for number, line in enumerate(lines)]


def glyph(method: Method | None) -> Markup:
    """Line and marker of a method for a legend; the start's with None."""
    line = tag("path", class_="line", d="M2 10h32") if method else None
    mark = tag("path", class_="mark", d=method.shape if method else RING, transform="translate(18 10)")
    inner = tag("g", line, mark, class_=method.style if method else "start")
    return tag("svg", inner, class_="glyph", viewBox="0 0 36 20", width=36, height=20, aria_hidden="true")


def panel(methods: Sequence[Method]) -> Markup:
    """The legend; with a script it also hides and highlights."""
    hint = "Tick to show; press a name to highlight it in every figure."
    if methods and methods[0].many:
        hint += f" Figures show the first {FIRST} in colour; the others are grey until highlighted."
    found = tag("label", "Find a method", tag("input", type="search", id="find", autocomplete="off"), class_="js field")
    both = tag(
        "div",
        tag("button", "Show all", type="button", data_show="all"),
        tag("button", "Hide all", type="button", data_show="none"),
        tag("button", "No highlight", type="button", data_show="plain"),
        class_="js buttons",
    )
    body = tag(
        "div",
        tag("p", hint, class_="js hint"),
        found,
        both,
        tag("ul", tag("li", glyph(None), tag("span", START), class_="entry"), *map(_entry, methods), role="list"),
        tag("p", class_="js hint", id="shown", role="status"),
    )
    inner = tag("details", tag("summary", f"Methods ({len(methods)})"), body, open=True)
    return tag("aside", inner, id="methods", aria_label="Methods")


def _entry(method: Method) -> Markup:
    box = tag(
        "label",
        tag("input", type="checkbox", checked=True, aria_label=f"show {method.name}", data_m=method.index),
        class_="js tick",
    )
    pick = tag(
        "button",
        glyph(method),
        name(method.name),
        state(method.line),
        type="button",
        class_="pick",
        aria_pressed=str(method.picked).lower(),
        data_m=method.index,
    )
    return tag("li", box, pick, class_="entry", data_m=method.index, data_name=method.name.casefold())


def state(line: Line) -> Markup:
    """A word for a method that is not whole; nothing for one that is."""
    words = {"failed": "failed", "missing": "not run", "part": f"{line.seeds} of {line.of} seeds"}
    said = words.get(line.state)
    return joined(" ", tag("span", said, class_=f"state {line.state}")) if said else joined()
