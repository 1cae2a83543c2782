"""Figures of one column against another: a point a cell, one with intervals a method, the start, and a frontier."""

from __future__ import annotations

from collections.abc import Sequence

from xpo.bench.page.frame import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, Frame, drawing
from xpo.bench.page.markup import Markup, joined, tag
from xpo.bench.page.methods import RING
from xpo.bench.page.points import Point, frontier, title
from xpo.bench.page.scale import Scale, span
from xpo.bench.scores import Column
from xpo.bench.summary import START
from xpo.train.marked import Number

_RIGHT = 18
#: Widths of a letter and heights of a line of a label, in units of the figure.
_LETTER, _LINE = 6.6, 14


def scatter(identity: str, some: Sequence[Point], x: Column, y: Column, pareto: bool = False) -> Markup:
    """A figure.

    Args:
        some: at least one.
        pareto: draw the frontier of little x and much y.
    """
    frame = Frame.of(_span([one.x for one in some]), _span([one.y for one in some]), _RIGHT)
    many = any(one.method is not None and one.method.many for one in some)
    parts = [tag("path", class_="pareto", d=_steps(frontier(some), frame), clip_path=f"url(#{identity}-clip)")]
    # Cells lie below means, and means below the start and the labels.
    order = sorted(some, key=lambda one: (one.method is None, one.seed is None))
    bars = [_bars(one, frame) for one in order if one.method is not None and one.seed is None]
    marks = [_mark(one, frame) for one in order]
    methods = len({one.method for one in some if one.method is not None})
    about = f"{methods} methods; {sum(one.seed is not None for one in some)} cells. All numbers are in the tables."
    return drawing(
        identity,
        "scatter some" if many else "scatter",
        f"{title(y)} against {title(x)}",
        about,
        _RIGHT,
        frame.clip(f"{identity}-clip"),
        frame.axes(title(x), title(y)),
        joined(*parts) if pareto else None,
        tag("g", *bars, class_="bars", clip_path=f"url(#{identity}-clip)"),
        tag("g", *marks, class_="points"),
        tag("g", *_labels(order, frame), class_="labels", aria_hidden="true"),
    )


def _span(numbers: Sequence[Number]) -> tuple[float, float]:
    ends = [end for one in numbers for end in (one.low, one.high) if end is not None]
    return span([one.value or 0.0 for one in numbers], ends)


def _place(point: Point, frame: Frame) -> tuple[float, float]:
    return frame.x.at(point.x.value or 0.0), frame.y.at(point.y.value or 0.0)


def _style(point: Point) -> str:
    return point.method.style if point.method else "start"


def _mark(point: Point, frame: Frame) -> Markup:
    left, top = _place(point, frame)
    kind = "mean" if point.method and point.seed is None else "cell" if point.method else "origin"
    return tag(
        "g",
        tag("title", point.told),
        tag("path", d=point.method.shape if point.method else RING),
        class_=f"point {kind} {_style(point)}",
        transform=f"translate({left} {top})",
        data_m=point.method.index if point.method else None,
        data_x=_exact(point.x.value),
        data_y=_exact(point.y.value),
    )


def _bars(point: Point, frame: Frame) -> Markup:
    left, top = _place(point, frame)
    ends = [_exact(end) for end in (point.x.low, point.x.high, point.y.low, point.y.high)]
    across, along = _ends(point.x, frame.x), _ends(point.y, frame.y)
    return tag(
        "path",
        class_=f"bar {_style(point)}",
        d=(f"M{across[0]} {top}H{across[1]}" if across else "") + (f"M{left} {along[0]}V{along[1]}" if along else ""),
        data_m=point.method.index if point.method else None,
        data_x=_exact(point.x.value),
        data_y=_exact(point.y.value),
        data_ends=" ".join(ends),
    )


def _ends(found: Number, scale: Scale) -> tuple[float, float] | None:
    return None if found.low is None or found.high is None else (scale.at(found.low), scale.at(found.high))


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _steps(some: Sequence[Point], frame: Frame) -> str:
    """What no mean to the left of it beats, to the right edge."""
    places = [_place(one, frame) for one in some]
    rest = "".join(f"H{left}V{top}" for left, top in places[1:])
    return f"M{places[0][0]} {places[0][1]}{rest}H{WIDTH - _RIGHT}"


def _labels(order: Sequence[Point], frame: Frame) -> list[Markup]:
    """Names beside means, where one of four places is free; the others are shown when they are highlighted."""
    named = [one for one in order if one.seed is None]
    taken = [(left - 7, top - 7, left + 7, top + 7) for left, top in (_place(one, frame) for one in named)]
    found = []
    for point in named:
        text = point.method.name if point.method else START
        left, top = _place(point, frame)
        wide = _LETTER * len(text)
        middle = left - wide / 2
        for start, base in ((left + 10, top + 4), (left - 10 - wide, top + 4), (middle, top - 11), (middle, top + 21)):
            box = (start, base - _LINE + 3, start + wide, base + 3)
            inside = start >= LEFT and start + wide <= WIDTH - _RIGHT and box[1] >= TOP and box[3] <= HEIGHT - BOTTOM
            quiet = point.method is not None and point.method.many and not point.method.picked
            if inside and not quiet and not any(_meet(box, other) for other in taken):
                taken.append(box)
                found.append(_label(point, text, round(start, 1), round(base, 1), ""))
                break
        else:
            found.append(_label(point, text, left + 10, top + 4, " quiet"))
    return found


def _label(point: Point, text: str, left: float, base: float, more: str) -> Markup:
    return tag(
        "text",
        text,
        class_=f"label {_style(point)}{more}",
        x=left,
        y=base,
        data_m=point.method.index if point.method else None,
        data_x=_exact(point.x.value),
        data_y=_exact(point.y.value),
    )


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
