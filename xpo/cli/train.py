"""``xpo train``: settings in, a trained model and its record out."""

from __future__ import annotations

import atexit
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from xpo.cli.settings import listed

if TYPE_CHECKING:
    from xpo.api.algorithm import Algorithm
    from xpo.train.vocabulary import Slot

SUMMARY = "train a policy with one of the methods"

_USAGE = """\
usage: xpo train --algo METHOD [--model NAME] [--dataset NAME] [--config FILE.yaml] [--SETTING VALUE ...]

Without a model and a data set it trains the embedded ones, in a few minutes on a CPU.
Every setting can be a flag, a line in a YAML file or a keyword of xpo.train(); a flag wins over the file.
"""

_TITLES = {"run": "run and data", "model": "model", "rollout": "sampling and rewards"}


def run(argv: list[str]) -> int:
    """Train as the flags say; the exit status."""
    from xpo.cli.launch import ensure_processes
    from xpo.compat import quiet
    from xpo.train.sources import from_argv

    quiet()
    if {"-h", "--help"} & set(argv):
        print(help_text([word for word in argv if word not in ("-h", "--help")]))
        return 0
    ensure_processes(argv)
    # The settings file may set environment variables that the libraries read when they are imported.
    sources = from_argv(argv)
    from accelerate import PartialState

    from xpo.cli.console import warn
    from xpo.plugins import load
    from xpo.train.flags import settle
    from xpo.train.machine import is_main
    from xpo.train.processes import meet_on_cpu
    from xpo.train.run import execute

    meet_on_cpu()
    settings = settle(sources)
    if is_main():
        warn(load())
    execute(settings)
    # Ranks leave at different moments, and threads of a group that is still there may then abort a process at its end.
    atexit.register(PartialState().destroy_process_group)
    return 0


def help_text(argv: list[str]) -> str:
    """The settings there are; with ``--algo`` also those of the method, and its recommendations."""
    from xpo.plugins import load
    from xpo.train.flags import online
    from xpo.train.settings import TrainingArguments
    from xpo.train.sources import from_argv
    from xpo.train.trl_flags import REFUSED
    from xpo.train.vocabulary import SECTIONS, read_value, slots_of

    registry = load()
    sources = from_argv(argv)
    chosen = [read_value(given, str) for given in sources if given.name == "algo"]
    algorithm = registry.algorithm(chosen[-1]).cls if chosen else None
    parts = [_USAGE] if algorithm is None else [_USAGE, *_about(algorithm)]
    for name, title in _TITLES.items():
        if name != "rollout" or algorithm is None or algorithm.data == "rollouts" or online(sources):
            parts.append(_section(title, slots_of(name, SECTIONS[name])))
    training = {key: slot for key, slot in slots_of("training", TrainingArguments).items() if key not in REFUSED}
    own = {key: slot for key, slot in training.items() if key in TrainingArguments.__annotations__}
    parts.append(_section("training", own))
    parts.append(f"the other arguments of transformers.TrainingArguments\n{_wrapped(training.keys() - own.keys())}\n")
    if algorithm is None:
        parts.append(f"methods\n{_wrapped(registry.listed('algorithm'))}\n")
        parts.append("`xpo train --algo METHOD --help` lists the settings of a method.")
    return "\n".join(parts)


def _about(algorithm: type[Algorithm[Any]]) -> list[str]:
    from xpo.train.vocabulary import slots_of

    paper = algorithm.paper
    lines = [f"{algorithm.name}: {algorithm.summary}", f"  {algorithm.equation}", f"  {paper.title}, {paper.url}"]
    for title, chosen in (("recommended", algorithm.training), ("with adapters", algorithm.lora_training)):
        if chosen:
            lines.append(f"  {title}: " + ", ".join(f"{name}={value}" for name, value in chosen.items()))
    return ["\n".join(lines) + "\n", _section(f"settings of {algorithm.name}", slots_of("algorithm", algorithm.Config))]


def _section(title: str, slots: Mapping[str, Slot]) -> str:
    return f"{title}\n{listed(slots)}"


def _wrapped(names: Iterable[str]) -> str:
    return textwrap.indent(textwrap.fill(" ".join(sorted(names)), 108, break_on_hyphens=False), "  ")
