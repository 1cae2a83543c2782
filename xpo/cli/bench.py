"""``xpo bench``: methods in, a table that compares them out."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xpo.bench.summary import Summary

_USAGE = """\
usage: xpo bench --algos A,B,... --output_dir DIR [--seeds 0,1,2] [--model NAME] [--dataset NAME] [--config FILE.yaml]
                 [--grid NAME=V1,V2,...] [--METHOD.SETTING VALUE] [--SETTING VALUE ...]
       xpo bench --output_dir DIR --table

Trains each method from the same model, on the same data, for the same steps or tokens, examines all in the same way,
and writes table.md, table.csv, table.tex, records.json and report.html, a page with tables, figures and samples that
needs nothing else. Without a model and a data set it compares on the embedded ones. The same command goes on where it
was stopped. Every setting of `xpo train` that all methods share is a setting here; --METHOD.SETTING is for one of them.

settings
"""


def run(argv: list[str]) -> int:
    """Compare as the flags say; 1 when a cell failed."""
    from xpo.compat import quiet
    from xpo.train.sources import from_argv

    quiet()
    if {"-h", "--help"} & set(argv):
        print(help_text(), end="")
        return 0
    # The settings file may set environment variables that the libraries read when they are imported.
    sources = from_argv(argv)
    from xpo.bench.reading import read
    from xpo.bench.run import run as run_suite
    from xpo.bench.run import write_outputs
    from xpo.cli.console import warn
    from xpo.errors import SettingError
    from xpo.plugins import load

    told = read(sources)
    folder = Path(told.options.output_dir)
    if told.options.table:
        if told.named - {"table", "output_dir"} or told.common or told.own:
            raise SettingError("--table draws what is there and runs nothing; give it with --output_dir alone")
        summary = write_outputs(folder)
    else:
        registry = load()
        warn(registry)
        summary = run_suite(told, registry)
    show(summary)
    print(f"saved to {folder}: table.md, table.csv, table.tex, records.json, report.html")
    return 1 if summary.failures else 0


def help_text() -> str:
    """The settings there are, apart from those of training."""
    from xpo.bench.options import NAMES

    lines = []
    for name, text in NAMES.items():
        lines += textwrap.wrap(text, 110, initial_indent=f"  --{name:<24} ", subsequent_indent=" " * 29)
    return _USAGE + "\n".join(lines) + "\n"


def show(summary: Summary) -> None:
    """The table on standard output."""
    from xpo.bench.table import LEGEND, cost, quality
    from xpo.cli.console import console
    from xpo.train.tables import marked

    out = console()
    for rows in (quality(summary), cost(summary)):
        out.print(marked(rows, bold=out.is_terminal), "")
    out.print(LEGEND, markup=False)
    for which, why in summary.failures:
        out.print(f"failed: {which}: {why}", markup=False)
    for note in summary.notes:
        out.print(f"note: {note}", markup=False)
    sys.stdout.flush()
