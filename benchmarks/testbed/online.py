"""Runs that sample while they train: methods of samples, methods of data with ``--online``, and one with a judge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from xpo.testbed import testbed_reward
from xpo.train.intervals import mean_interval, paired_interval
from xpo.train.record import Sample

#: Steps of these runs: fewer than the testbed's default, since each samples for every one of them.
STEPS = 80
#: Prompts whose samples the record of a run with a judge keeps: all that are sampled for.
PROMPTS = 200
#: Methods of each kind of data that are also tried on samples.
ONLINE: Sequence[str] = ("dpo", "simpo", "ipo", "kto", "bco", "lipo", "listnet")
#: Methods that play rounds against their previous iterate.
ROUNDS: Mapping[str, int] = {"sppo": 3, "dno": 3}


def known_judge(prompts: Sequence[Any], completions: Sequence[tuple[Any, Any]], **_: object) -> list[float]:
    """A judge who knows the true reward: P(first is preferred) = sigmoid(r_first - r_second)."""
    first, second = (testbed_reward(prompts, [pair[place] for pair in completions]) for place in (0, 1))
    return [1 / (1 + math.exp(b - a)) for a, b in zip(first, second, strict=True)]


def rewarded(samples: Sequence[Sample]) -> dict[str, dict[str, Any]]:
    """The row of the known reward, which a run with a judge does not measure, from the samples in its record."""
    prompts = [one.prompt for one in samples]
    before = testbed_reward(prompts, [one.before for one in samples])
    after = testbed_reward(prompts, [one.after for one in samples])
    old, new, change = mean_interval(before), mean_interval(after), paired_interval(before, after)
    row = {"before": old.value, "after": new.value, "interval_before": old.interval, "interval_after": new.interval}
    return {"mean reward": {**row, "interval_change": change.interval}}


def online_runs(of_samples: Sequence[str]) -> list[tuple[str, str, dict[str, Any]]]:
    """(title, method, settings) of every run.

    Args:
        of_samples: the methods that sample by themselves.
    """
    runs: list[tuple[str, str, dict[str, Any]]] = [
        *((name, name, {}) for name in of_samples),
        *((f"{name} --online", name, {"online": True}) for name in ONLINE),
        *(
            (f"{name} --online, {count} rounds", name, {"online": True, "rounds": count})
            for name, count in ROUNDS.items()
        ),
        ("dpo --online, a judge", "dpo", {"online": True, "judge": known_judge, "sample_completions": PROMPTS}),
    ]
    return [(title, algo, {"max_steps": STEPS, **settings}) for title, algo, settings in runs]
