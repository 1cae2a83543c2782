"""The metric that says which checkpoint is best: one that is not there is refused before training, not in its midst."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import TYPE_CHECKING

from xpo.errors import SettingError
from xpo.train.diagnostics import MEANINGS

if TYPE_CHECKING:
    from xpo.train.trainer import PreferenceTrainer

#: What transformers adds to every evaluation.
_ALWAYS = {"loss", "runtime", "samples_per_second", "steps_per_second"}


def check_best(trainer: PreferenceTrainer) -> None:
    """Refuse a metric that no evaluation of this run will have; one batch shows which it will. Every rank must call it.

    Where completions are sampled, only the first evaluation can tell.

    Raises:
        SettingError: there is no such metric; the message lists those there are.
    """
    wanted = trainer.args.metric_for_best_model
    if wanted is None or wanted.removeprefix("eval_") in _ALWAYS or trainer.args.eval_strategy == "no":
        return
    names = trainer.names_of_metrics()
    if names is not None:
        # Of few items some diagnostics cannot be computed, of all of them they can.
        check_metric(wanted, {*names, *MEANINGS})


def check_metric(wanted: str | None, names: Collection[str]) -> None:
    """Refuse a metric that is not among those of an evaluation.

    Args:
        names: with the prefix of an evaluation or without.
    """
    there = {name.removeprefix("eval_") for name in names} | _ALWAYS
    if wanted is not None and (name := wanted.removeprefix("eval_")) not in there:
        tails = {one.rpartition("/")[2]: one for one in sorted(there)}
        close = {*get_close_matches(name, there), *(tails[tail] for tail in get_close_matches(name, tails))}
        rest = f"Did you mean {' or '.join(sorted(close))}?" if close else f"There are: {', '.join(sorted(there))}."
        raise SettingError(f"--metric_for_best_model {wanted}: no evaluation of this run has such a metric. {rest}")
