"""What a run of training is told: settings for all methods, a method's own, and those it tries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from xpo.bench.options import NAMES, BenchOptions
from xpo.bench.reading import Owned, Told
from xpo.bench.rules import DEFAULTS, FEEDBACK, FIXED, REFUSED, SHARED, UNBOUNDED
from xpo.errors import SettingError, XpoError
from xpo.train.flags import settle
from xpo.train.settings import RolloutSettings, Settings
from xpo.train.sources import Given
from xpo.train.trl_flags import ALIASES
from xpo.train.vocabulary import Vocabulary, slots_of


def common_settings(told: Told, words: Mapping[str, Vocabulary]) -> dict[str, Any]:
    """Settings of feedback, which only some methods read while training, and others that all share."""
    slots = slots_of("rollout", RolloutSettings)
    found: dict[str, Any] = {}
    some = next(iter(words.values()))
    for given in told.common:
        name = ALIASES.get(given.name, given.name)
        _refuse(given, name)
        if name in FEEDBACK:
            value = Vocabulary.read(_Feedback(some, slots), given)
            found[name] = None if value is None else value[1]
        elif name in SHARED and (value := some.read(given)) is not None:
            found[value[0]] = value[1]
    return found


def cell_settings(
    method: str,
    told: Told,
    point: Mapping[str, Any],
    words: Vocabulary,
    options: BenchOptions,
) -> dict[str, Any]:
    """All settings of a cell by their proper names, as JSON values."""
    found: dict[str, Any] = dict(DEFAULTS)
    if options.budget_tokens is not None:
        found |= UNBOUNDED
    tried = [Owned(name, value, "flag", before="--grid ") for name, value in point.items()]
    own = [given for given in told.own.get(method, []) if given.name != "algo"]
    for source, givens in (("common", told.common), ("own", own), ("point", tried)):
        for given in givens:
            name = words.resolve(given.name)
            _refuse(given, name)
            if source != "common" and _of_all(name, words):
                raise SettingError(f"{given.label}: all methods of a suite share it; give it once, for all of them")
            if name in FEEDBACK and not words.samples:
                continue
            taken = words.read(given)
            if taken is not None:
                found[taken[0]] = taken[1]
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return dict(sorted(plain.items()))


def check(method: str, algo: str, settings: Mapping[str, Any], options: BenchOptions) -> None:
    """Refuse what training would refuse, before the first cell starts."""
    try:
        checked = run_settings(algo, settings, output_dir=f"{options.output_dir}/check")
    except XpoError as error:
        raise type(error)(f"{method}: {str(error).removeprefix(f'{method}: ')}") from None
    if options.budget_tokens is not None and checked.rollout is not None and checked.rollout.rounds > 1:
        raise SettingError(f"{method}: --rounds divides a number of steps, which --budget_tokens leaves open; drop one")


def run_settings(algo: str, settings: Mapping[str, Any], **more: Any) -> Settings:
    """Settings of a run of ``xpo train``, as a cell does it."""
    return settle([Given(name, value, "flag") for name, value in {"algo": algo, **settings, **FIXED, **more}.items()])


class _Feedback(Vocabulary):
    """A vocabulary that knows what judges samples, whether or not its method samples."""

    def __init__(self, other: Vocabulary, slots: Mapping[str, Any]) -> None:
        self.algorithm, self.registry, self.samples = other.algorithm, other.registry, True
        self.slots = {**other.slots, **slots}


def _of_all(name: str, words: Vocabulary) -> bool:
    """Whether a setting is one for all methods: the comparison rests on it, or it is the suite's own."""
    mine = name in words.slots and words.slots[name].section == "algorithm"
    return name in SHARED or (name in NAMES and not mine)


def _refuse(given: Given, name: str) -> None:
    if name in REFUSED:
        raise SettingError(f"{given.label} is not for xpo bench: {REFUSED[name]}")
