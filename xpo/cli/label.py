"""``xpo label``: prompts in, a preference data set out."""

from __future__ import annotations

from xpo.cli.settings import listed

_USAGE = """\
usage: xpo label --output FILE.jsonl [--model NAME] [--dataset NAME] (--judge NAME | --reward NAME ...)
                 [--to pairs|labels|lists] [--SETTING VALUE ...]

Samples completions of prompts, has them judged, and writes a preference data set that `xpo train` and TRL read. Where
the rows hold completions already (chosen and rejected, or completions), these are judged instead, and no model is
needed. The same command goes on where it was stopped. Without a data set it labels the embedded prompts.

settings
"""


def run(argv: list[str]) -> int:
    """Label as the flags say; 1 when not a single row came of it."""
    from xpo.compat import quiet
    from xpo.train.sources import from_argv

    quiet()
    if {"-h", "--help"} & set(argv):
        print(help_text(), end="")
        return 0
    # The settings file may set environment variables that the libraries read when they are imported.
    sources = from_argv(argv)
    from xpo.cli.console import warn
    from xpo.label.run import execute
    from xpo.label.settings import settle
    from xpo.plugins import load

    settings = settle(sources)
    warn(load())
    done = execute(settings)
    for line in (*done.lines, f"saved to {done.path}"):
        print(line)
    return 0 if done.rows else 1


def help_text() -> str:
    """The settings there are."""
    from xpo.label.settings import ABOUT, slots

    return _USAGE + listed(slots(), ABOUT)
