"""``xpo algos``: the methods there are, and all about one of them."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from xpo.plugins import Entry, Registry, load

if TYPE_CHECKING:
    from rich.console import RenderableType

    from xpo.api.algorithm import Algorithm


def run(argv: list[str]) -> int:
    """Print one method or all of them; the exit status."""
    parser = argparse.ArgumentParser("xpo algos", description="List the methods, or explain one of them.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a method: print its equation, settings and metrics")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    from xpo.cli.console import warn

    registry = load()
    warn(registry)
    if args.name is not None:
        found = describe(args.name, registry.algorithm(args.name))
        if args.json:
            print(json.dumps(found, indent=2, default=str))
        else:
            _show(found)
    else:
        every = describe_all(registry)
        if args.json:
            print(json.dumps(every, indent=2, default=str))
        else:
            _list(every)
    return 0


def describe_all(registry: Registry) -> list[dict[str, Any]]:
    """All methods, each once."""
    return [describe(name, registry.algorithms[name]) for name in registry.listed("algorithm")]


def describe(name: str, entry: Entry) -> dict[str, Any]:
    """A method as JSON values."""
    from xpo.api.groups import COLUMNS

    cls = entry.cls
    return {
        "name": name,
        "summary": cls.summary,
        "equation": cls.equation,
        "paper": {"title": cls.paper.title, "url": cls.paper.url, "year": cls.paper.year},
        "data": cls.data,
        "columns": COLUMNS[cls.data],
        "further_columns": [*cls.columns, *("/".join(names) for names in cls.extras.values())],
        "converts": converted(cls),
        "trains": cls.model,
        "needs": _asked(cls),
        "settings": {key: {"default": default, "help": text} for key, (default, text) in cls.settings().items()},
        "aliases": {alias: spelt for alias, name in cls.aliases.items() if (spelt := _flag(cls, name)) != alias},
        "training": dict(cls.training),
        "lora_training": dict(cls.lora_training),
        "metrics": dict(cls.metrics),
        "supplier": str(entry.supplier),
        "example": f"xpo train --algo {name} --model MODEL --dataset DATA",
    }


def converted(cls: type[Algorithm[Any]]) -> dict[str, str]:
    """Kinds of data that a method's own can be made of -> how."""
    from xpo.api.groups import KINDS
    from xpo.data.convert import convert
    from xpo.data.counts import Counts
    from xpo.errors import DataError

    found: dict[str, str] = {}
    for kind in KINDS:
        try:
            _, how = convert([], kind, cls.data, Counts(), scored=cls.needs.scores)
        except DataError:
            continue
        if how is not None:
            found[kind] = how
    return found


def _asked(cls: type[Algorithm[Any]]) -> dict[str, Any]:
    """What a method needs that others do not."""
    usual = asdict(type(cls.needs)())
    return {name: wanted for name, wanted in asdict(cls.needs).items() if wanted != usual[name]}


def _flag(cls: type[Algorithm[Any]], name: str) -> str:
    """A setting as it is written: those of a sum of methods have another name in its ``Config``."""
    return str(next(item.metadata.get("flag", name) for item in fields(cls.Config) if item.name == name))


def needs(found: dict[str, Any]) -> str:
    """What a method asks of the loop, in words."""
    wanted = found["needs"]
    parts = [
        "a reference model" if "reference" in wanted else "",
        "a value model" if "values" in wanted else "",
        "full next-token distributions" if "vocabulary" in wanted else "",
        "a number for every completion" if "scores" in wanted else "",
        f"{wanted['samples']} samples of every prompt" if "samples" in wanted and found["data"] == "rollouts" else "",
        "an opponent's answers" if "opponent" in wanted else "",
        f"{wanted['least']} prompts in a micro-batch" if "least" in wanted else "",
    ]
    return ", ".join(part for part in parts if part) or "nothing"


def _list(every: list[dict[str, Any]]) -> None:
    from xpo.cli.console import console
    from xpo.train.tables import table

    rows = [
        (m["name"], m["data"], needs(m), m["summary"], f"{m['paper']['url']} ({m['paper']['year']})", m["supplier"])
        for m in every
    ]
    console().print(table(("name", "data", "needs", "summary", "paper", "from"), rows))
    console().print("`xpo algos NAME` explains one: its equation, settings and metrics.")


def _show(found: dict[str, Any]) -> None:
    from xpo.cli.console import console
    from xpo.train.tables import table

    paper = found["paper"]
    facts = [
        ("loss", found["equation"]),
        ("paper", f"{paper['title']} ({paper['year']}), {paper['url']}"),
        ("data", f"{found['data']}: columns {found['columns']}"),
        ("reads too", ", ".join(found["further_columns"]) or "no other columns"),
        *(("made of", f"{', '.join(kinds)}: {how}") for how, kinds in _by_value(found["converts"]).items()),
        ("trains", f"a {found['trains']} model" if found["trains"] != "policy" else "a policy"),
        ("needs", needs(found)),
        ("full fine-tuning", _assignments(found["training"])),
        ("LoRA", _assignments({**found["training"], **found["lora_training"]})),
        ("from", found["supplier"]),
    ]
    settings = [(f"--{name}", _spelt(of["default"]), of["help"]) for name, of in found["settings"].items()]
    settings += [(f"--{alias}", "", f"the same as --{name}") for alias, name in found["aliases"].items()]
    parts: list[RenderableType] = [f"{found['name']}: {found['summary']}", table(("", ""), facts, headed=False)]
    if settings:
        parts.append(table(("setting", "default", "meaning"), settings))
    if found["metrics"]:
        parts.append(table(("metric", "meaning"), list(found["metrics"].items())))
    for part in parts:
        console().print(part, "", sep="\n", markup=False)
    console().print(f"Try it: {found['example']}", markup=False)
    console().print("Without --model and --dataset it trains the embedded ones.")


def _by_value(values: dict[str, str]) -> dict[str, list[str]]:
    """The keys of each value."""
    found: dict[str, list[str]] = {}
    for key, value in values.items():
        found.setdefault(value, []).append(key)
    return found


def _spelt(value: Any) -> str:
    """A default as one would type it."""
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _assignments(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_spelt(value)}" for name, value in values.items()) or "the defaults of `xpo train`"
