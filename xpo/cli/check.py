"""``xpo check``: does a method keep what the loop relies on? For those that are installed, and for others."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from xpo.errors import PluginError
from xpo.plugins import load

if TYPE_CHECKING:
    from xpo.api.algorithm import Algorithm
    from xpo.testing.report import Report

MARKS = {"pass": "✓", "fail": "✗", "n/a": "–"}


def run(argv: list[str]) -> int:
    """Print what was found; 1 when something is wrong."""
    parser = argparse.ArgumentParser(
        "xpo check",
        description="Try methods on made-up data: gradients, invariances, extremes, settings that do nothing, state.",
        epilog="docs/check.md says what each check means, and how to use them in the tests of a package of your own.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a method, or a class that is not installed yet: module:Class or file.py:Class; without one all methods",
    )
    parser.add_argument("--all", action="store_true", help="check every installed method")
    parser.add_argument("--cases", metavar="FILE", help="also run the test vectors of a JSON file that a method claims")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    if args.all and args.names:
        parser.error("--all checks every installed method; leave out the names, or --all")
    from xpo.cli.console import warn

    warn(load())
    names = args.names or load().listed("algorithm")
    classes = [(name, find(name)) for name in names]  # all of them, before the first takes its time
    from xpo.testing.check import check_algorithm
    from xpo.testing.vectors import read_cases

    cases = None if args.cases is None else read_cases(args.cases)
    reports = []
    for number, (name, cls) in enumerate(classes, 1):
        _progress(f"checking {name} ({number} of {len(classes)})")
        reports.append(check_algorithm(cls, cases))
    _progress("")
    alone = len(args.names) == 1
    if args.json:
        found = [report.as_json() for report in reports]
        print(json.dumps(found[0] if alone else found, indent=2))
    elif alone:
        _show(reports[0])
    else:
        _list(reports)
    return 0 if all(report.ok for report in reports) else 1


def find(name: str) -> type[Algorithm[Any]]:
    """The class that is meant: an installed method by its name, or ``module:Class``, or ``file.py:Class``.

    Raises:
        PluginError: there is none.
    """
    registry = load()
    if "+" in name or "*" in name:
        raise PluginError(f"'{name}' is made of several methods; check them by themselves")
    place, _, word = name.rpartition(":")
    if place.endswith(".py") or name.endswith(".py"):
        return _of(_file(Path(place or name)), word if place else "", name)
    if place and name not in registry.algorithms and word.isidentifier() and _is_module(place):
        return _of(_imported(place), word, name)
    return registry.algorithm(name).cls


def _of(module: ModuleType, word: str, name: str) -> type[Algorithm[Any]]:
    from xpo.api.algorithm import Algorithm

    own = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Algorithm) and value.__module__ == module.__name__
    }
    cls = getattr(module, word, None)
    if isinstance(cls, type) and issubclass(cls, Algorithm):
        return cls
    listed = f"it has {', '.join(own)}" if own else "it has no algorithm at all"
    raise PluginError(f"'{name}' names no algorithm: {listed}; write {name.rpartition(':')[0] or name}:CLASS")


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"there is no file '{path}'")
    _reach(path.resolve().parent)  # its neighbours are there for it, as they are for a script
    name = f"checked_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up the module of their class
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script may end the process where it is imported
        raise PluginError(f"'{path}' cannot be imported: {_reason(error)}") from error
    return module


def _is_module(name: str) -> bool:
    _reach(Path.cwd())  # what is not installed yet lies there
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _reach(folder: Path) -> None:
    """Let modules of a folder be imported."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise PluginError(f"'{name}' cannot be imported: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _show(report: Report) -> None:
    from xpo.cli.console import console
    from xpo.testing.report import NOT_REACHED
    from xpo.train.tables import table

    reached = [check for check in report.checks if not check.reason.startswith(NOT_REACHED)]
    rows = [(MARKS[check.verdict], check.name, check.reason) for check in reached]
    if left := report.checks[len(reached) :]:
        rows.append((MARKS["n/a"], f"{len(left)} more", left[0].reason))
    console().print(report.algorithm, markup=False)
    console().print(table(("", "check", "remark"), rows))
    console().print(_summary([report]), markup=False)


def _list(reports: list[Report]) -> None:
    from xpo.cli.console import console
    from xpo.train.tables import table

    rows = [
        (
            MARKS["pass" if report.ok else "fail"],
            report.algorithm,
            "".join(MARKS[check.verdict] for check in report.checks),
            ", ".join(check.name for check in report.crosses),
        )
        for report in reports
    ]
    console().print(table(("", "method", "checks", "wrong"), rows))
    for report in reports:
        for check in report.crosses:
            console().print(f"{report.algorithm}, {check.name}: {check.reason}", markup=False)
    console().print(_summary(reports), markup=False)


def _summary(reports: list[Report]) -> str:
    wrong = sum(len(report.crosses) for report in reports)
    made = sum(check.verdict != "n/a" for report in reports for check in report.checks)
    return f"{made} checks, {wrong} wrong" if wrong else f"{made} checks, nothing wrong"
