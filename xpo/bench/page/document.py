"""The page: its sections in order, and its style and scripts inside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from xpo.bench.page import provenance, tables
from xpo.bench.page.courses import Course, courses_of, first_metric, metrics_of, packed
from xpo.bench.page.lines import lines
from xpo.bench.page.markup import Markup, Part, data, joined, tag
from xpo.bench.page.methods import SHAPES, Method, methods_of, panel
from xpo.bench.page.points import points, worth
from xpo.bench.page.samples import samples
from xpo.bench.page.scatter import scatter
from xpo.bench.summary import Summary

#: Nothing may be loaded from anywhere; only what stands in the page itself runs.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
TITLE = "Methods compared"
_SCRIPTS = ("figures.js", "script.js")


def page(summary: Summary, records: Mapping[str, Any]) -> str:
    """``report.html``, made of the records of a suite and nothing else."""
    methods = methods_of(summary)
    courses = courses_of(records, methods)
    sections = _sections(summary, records, methods, courses)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{TITLE}: {', '.join(method.name for method in methods[:6])}{', …' if methods[6:] else ''}"),
        Markup(f"<style>{_asset('style.css')}</style>"),
    )
    links = [tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in sections]
    banner = tag(
        "header", tag("h1", TITLE), provenance.facts(records), tag("nav", tag("ul", *links), aria_label="Sections")
    )
    body = [tag("section", tag("h2", title, id=key), inner, aria_labelledby=key) for key, title, inner in sections]
    foot = tag("footer", tag("p", f"Written by xpo bench, {records['start']['xpo_version']}."))
    curves = packed([course for course in courses if course.known])
    about = {"methods": [method.name for method in methods], "shapes": SHAPES, **curves}
    scripts = [Markup(f"<script>{_asset(script)}</script>") for script in _SCRIPTS]
    skip = tag("a", "Skip to the tables", href="#main", class_="skip")
    main = tag("main", *body, id="main", tabindex=-1)
    inside = tag(
        "body", skip, banner, tag("div", panel(methods), main, class_="columns"), foot, data("data", about), *scripts
    )
    return "<!DOCTYPE html>\n" + tag("html", head, inside, lang="en") + "\n"


def _sections(
    summary: Summary, records: Mapping[str, Any], methods: Sequence[Method], courses: Sequence[Course]
) -> list[tuple[str, str, Part]]:
    """Identity, title and content of each section there is something to say in."""
    notes = tables.listed("notes-list", summary.notes) if summary.notes else None
    failed = [f"{which}: {why}" for which, why in summary.failures]
    finished = any(line.numbers for line in summary.lines if line.algo)
    column = worth(summary)
    good = column.title.capitalize() if column else ""
    found: list[tuple[str, str, Part]] = [
        ("results", "Results", _results(summary, records, methods)),
        ("notes", "Notes", notes),
        ("failures", "Failed", tables.listed("failures-list", failed) if failed else None),
        ("frontier", f"{good} against KL", _against(summary, records, methods, "kl")),
        ("length", f"{good} against length", _against(summary, records, methods, "mean_length")),
        ("curves", "Learning curves", _curves(courses) if finished else None),
        ("samples", "Samples", samples(records, methods) if finished else None),
        ("costs-section", "Costs", tables.costs(methods)),
        ("settings", "Settings tried", tables.tried(summary, records, methods)),
        ("provenance", "Provenance", joined(provenance.origin(records), provenance.commands(records))),
    ]
    return [section for section in found if section[2] is not None]


def _results(summary: Summary, records: Mapping[str, Any], methods: Sequence[Method]) -> Markup:
    table = tables.quality(summary, records, methods)
    return joined(tables.headline(summary, records), table, tables.legend(summary))


def _against(summary: Summary, records: Mapping[str, Any], methods: Sequence[Method], key: str) -> Markup | None:
    """The figure of how good samples are against another column; None where either was not measured."""
    y = worth(summary)
    x = next((column for column in summary.columns if column.key == key), None)
    if x is None or y is None or not (some := points(summary, records, methods, x, y)):
        return None
    pareto = key == "kl"
    words = [
        "Large marks are means with 95 % intervals, small ones single seeds; the ring is the start.",
        "Up and to the left is better; the stepped line runs along means that no other beats in both."
        if pareto
        else "Methods that gain by writing more lie above the start and to its right.",
        "An interval that leaves the frame goes on.",
    ]
    return _figure(scatter(f"{key}-figure", some, x, y, pareto), " ".join(words))


def _curves(found: Sequence[Course]) -> Markup:
    courses = [course for course in found if course.known]
    lost = sum(course.seed is not None and not course.known for course in found)
    left_out = f" {lost} curves without any finite number are left out." if lost else ""
    if not courses:
        why = "no finished cell of those in the table logged a metric at two steps."
        return tag("p", f"There are no learning curves: {why}{left_out}")
    metrics = metrics_of(courses)
    cells = max(metrics.values())
    first = first_metric(metrics)
    options = [
        tag(
            "option",
            f"{metric} ({count} of {cells} cells)" if count < cells else metric,
            value=number,
            selected=metric == first,
        )
        for number, (metric, count) in enumerate(metrics.items())
    ]
    chooser = tag("label", "Metric", tag("select", *options, id="choose-metric"), class_="js field")
    mine = [course for course in courses if course.metric == first]
    words = (
        "Thin lines are seeds, thick ones means over seeds. Long histories are thinned: a point is then the mean of "
        f"neighbouring entries of the log. Gaps are numbers that were not finite.{left_out}"
    )
    return joined(chooser, _figure(lines("curves-figure", mine), words))


def _figure(drawn: Markup, words: str) -> Markup:
    keys = tag("span", " Point at, touch or focus a mark to read it; arrow keys go from one to the next.", class_="js")
    tip = tag("div", class_="tip", hidden=True, aria_hidden="true")
    return tag("figure", tag("div", drawn, tip, class_="canvas"), tag("figcaption", words, keys))


def _asset(file: str) -> str:
    return (files("xpo.bench.page") / file).read_text(encoding="utf-8")
