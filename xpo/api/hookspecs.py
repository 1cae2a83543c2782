"""The hooks of xpo: functions a plugin module may define, marked with ``@xpo.hookimpl``.

A package names its module in the entry-point group ``xpo``; ``xpo plugins`` shows what was found there, and why
something was not. Importing this module does not import torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

from xpo.api.evaluation import Evaluator
from xpo.api.groups import Kind

if TYPE_CHECKING:
    from xpo.api.algorithm import Algorithm

hookimpl = pluggy.HookimplMarker("xpo")
hookspec = pluggy.HookspecMarker("xpo")

#: ``f(prompts, completions, **columns)`` returns a number for every completion, or None where it has no opinion: TRL's
#: signature. It is called with keywords only; ``columns`` are further columns of the data, one value a completion.
RewardFunction = Callable[..., Sequence[float | None]]

#: ``f(prompts, completions, **columns)`` returns for every pair of completions the probability that the first is
#: preferred, or None where it has no verdict. It is called with keywords only: ``completions`` holds pairs of texts, or
#: of lists of messages where prompts are conversations; ``columns`` are further columns of the data, one value a pair.
JudgeFunction = Callable[..., Sequence[float | None]]

#: ``f(spec, kind, split)`` returns the rows of a data set. ``spec`` is what the user typed, such as
#: ``testbed:noise=0.3``, without the name of the package where that was typed too.
DatasetSource = Callable[[str, Kind, str], list[dict[str, Any]]]


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    pass


@dataclass(frozen=True)
class Command:
    """A subcommand of ``xpo``.

    Attributes:
        help: one sentence.
        run: does the work with the parsed arguments and returns the exit status.
        configure: adds arguments to the subcommand's own parser.
    """

    help: str
    run: Callable[[argparse.Namespace], int]
    configure: Callable[[argparse.ArgumentParser], None] = _no_arguments


@hookspec
def xpo_algorithms() -> Sequence[type[Algorithm[Any]]]:  # type: ignore[empty-body]  # plugins have one
    """Algorithm classes, in the order they are to be listed; each carries its own name."""


@hookspec
def xpo_rewards() -> Mapping[str, RewardFunction]:  # type: ignore[empty-body]  # plugins have one
    """Reward functions by name, for ``--reward NAME``."""


@hookspec
def xpo_judges() -> Mapping[str, JudgeFunction]:  # type: ignore[empty-body]  # plugins have one
    """Judges by name, for ``--judge NAME``: who prefers one completion to another.

    A judge that likes short answers, and has no verdict on two of a length::

        def shorter(prompts, completions, **columns):
            texts = [[one if isinstance(one, str) else one[-1]["content"] for one in pair] for pair in completions]
            return [None if len(a) == len(b) else float(len(a) < len(b)) for a, b in texts]


        @xpo.hookimpl
        def xpo_judges():
            return {"shorter": shorter}

    A function is asked once about each pair, in the order the two happen to have. An object with a method
    ``judge(prompts, completions, shuffle_order=False)`` that returns 0, 1 or -1, as TRL's judges had, is one too.
    """


@hookspec
def xpo_datasets() -> Mapping[str, DatasetSource]:  # type: ignore[empty-body]  # plugins have one
    """Sources of rows by name, for ``--dataset NAME`` and ``--dataset NAME:anything``: the source reads the rest."""


@hookspec
def xpo_evaluators() -> Mapping[str, Evaluator]:  # type: ignore[empty-body]  # plugins have one
    """Evaluators by name, for ``--evaluators NAME`` and ``--evaluators NAME:argument``: columns of ``xpo bench``."""


@hookspec
def xpo_commands() -> Mapping[str, Command]:  # type: ignore[empty-body]  # plugins have one
    """Subcommands by name, for ``xpo NAME``."""
