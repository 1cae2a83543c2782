"""``xpo eval``: models and labelled preferences in, accuracy out; or two models in, win rates out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from xpo.cli.settings import listed

if TYPE_CHECKING:
    from xpo.assess.summary import Summary
    from xpo.assess.win_table import WinSummary
    from xpo.train.marked import Cells

_USAGE = """\
usage: xpo eval --model NAME[,NAME...] --output_dir DIR [--ref_model NAME] [--dataset NAME] [--SETTING VALUE ...]
       xpo eval --reward NAME | --judge NAME --output_dir DIR [--dataset NAME] [--SETTING VALUE ...]
       xpo eval --model NAME --against NAME|FILE.jsonl --output_dir DIR (--reward NAME | --judge NAME) [...]

The first two say how often models, rewards or judges agree with labelled preferences, by subset, and whether they go
by length or by the order of answers. The third samples answers from two models and says who wins. Writes eval.json,
eval.md, eval.csv and items.jsonl. Without a data set it evaluates on the embedded one.

settings
"""


def run(argv: list[str]) -> int:
    """Evaluate as the flags say."""
    from xpo.compat import quiet
    from xpo.train.sources import from_argv

    quiet()
    if {"-h", "--help"} & set(argv):
        print(help_text(), end="")
        return 0
    # The settings file may set environment variables that the libraries read when they are imported.
    sources = from_argv(argv)
    from xpo.assess.run import execute
    from xpo.assess.settings import settle
    from xpo.assess.summary import Summary
    from xpo.cli.console import warn
    from xpo.plugins import load

    settings = settle(sources)
    warn(load())
    path, summary = execute(settings, shlex.join(["xpo", "eval", *argv]))
    if isinstance(summary, Summary):
        _show_agreement(summary)
    else:
        _show_wins(summary)
    print(f"saved to {path}: eval.json, eval.md, eval.csv, items.jsonl")
    sys.stdout.flush()
    return 0


def help_text() -> str:
    """The settings there are."""
    from xpo.assess.settings import ABOUT, slots

    return _USAGE + listed(slots(), ABOUT)


def _show_agreement(summary: Summary) -> None:
    from xpo.assess.table import LEGEND, UNAFFECTED, agreement, length_legend, lengths, positions, scorers

    for line in scorers(summary):
        _say(line)
    _say("")
    _tables(agreement(summary, wide=not sys.stdout.isatty()))
    _say(LEGEND, "")
    _tables([lengths(summary)])
    _say(length_legend(summary), "")
    if found := positions(summary):
        _tables([found])
    else:
        _say(f"Position: {UNAFFECTED[0].lower()}{UNAFFECTED[1:]}", "")
    _say(*(f"note: {note}" for note in summary.notes))


def _show_wins(summary: WinSummary) -> None:
    from xpo.assess.win_table import LEGEND, UNAFFECTED, orders, rates

    _tables([rates(summary)])
    _say(f"Judged by {summary.by}. {LEGEND}", "")
    if found := orders(summary):
        _tables([found])
    else:
        _say(UNAFFECTED, "")
    _say(*(f"note: {note}" for note in summary.notes))


def _tables(tables: Sequence[Sequence[Cells]]) -> None:
    from xpo.cli.console import console
    from xpo.train.tables import marked

    out = console()
    for rows in tables:
        out.print(marked(rows, bold=out.is_terminal), "")


def _say(*lines: str) -> None:
    from xpo.cli.console import console

    for line in lines:
        console().print(line, markup=False)
