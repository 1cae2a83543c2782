"""From words and a suite file to what a suite is told: its own options, and settings of training by whose they are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from xpo.bench.options import BenchOptions
from xpo.errors import SettingError
from xpo.train.sources import Given
from xpo.train.vocabulary import read_value, slots_of

#: Options that a comma separates.
_LISTED = ("algos", "seeds", "evaluators")


@dataclass(frozen=True)
class Owned(Given):
    """A setting that messages call by more than its name: ``--dpo.beta``, ``--grid beta``.

    Attributes:
        before: what stands before the name.
    """

    before: str = ""

    @property
    def label(self) -> str:
        return f"{self.before}{self.name}"

    def spell(self, name: str) -> str:
        return f"{self.before}{name}"


@dataclass(frozen=True)
class Told:
    """What was written.

    Attributes:
        options: of the suite itself.
        common: settings of training for all methods.
        own: settings for one method, by what the suite calls it.
        named: the options that were given.
        known: methods that any source names, chosen or not: a file may know of more than a flag chooses.
    """

    options: BenchOptions
    common: list[Given]
    own: Mapping[str, list[Given]]
    named: frozenset[str] = field(default_factory=frozenset)
    known: frozenset[str] = field(default_factory=frozenset)


def read(sources: Sequence[Given]) -> Told:
    """Sort what was given; what comes later wins.

    Raises:
        SettingError: an option of the suite cannot be read.
    """
    slots = slots_of("bench", BenchOptions)
    values: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    common: list[Given] = []
    own: dict[str, list[Given]] = {}
    dotted: list[Given] = []
    known: set[str] = set()
    for given in sources:
        if given.name == "grid":
            grid.update(_grid(given))
        elif given.name == "methods":
            for method, settings in _methods(given).items():
                own.setdefault(method, []).extend(settings)
        elif given.name in slots:
            values[given.name] = read_value(_listed(given), slots[given.name].hint)
            known.update(values["algos"] if given.name == "algos" else ())
        elif "." in given.name:
            dotted.append(given)
        else:
            common.append(given)
    options = BenchOptions(**values, grid=grid)
    for given in dotted:
        owner, name = owned(given.name, options.algos)
        if owner is None:
            common.append(given)  # a setting of a part of a sum of methods
            continue
        before = given.label.removesuffix(name)
        own.setdefault(owner, []).append(Owned(name, given.value, given.origin, given.file, before))
    return Told(options, common, own, frozenset(values) | ({"grid"} if grid else set()), frozenset(known))


def owned(name: str, methods: Iterable[str]) -> tuple[str | None, str]:
    """Which of some methods ``METHOD.SETTING`` is for, if any, and the setting; either may have dots in it."""
    alike = name.replace("-", "_")  # which flags do not tell apart
    found = [method for method in methods if alike.startswith(f"{method.replace('-', '_')}.")]
    owner = max(found, key=len, default=None)
    return owner, name if owner is None else name[len(owner) + 1 :]


def _listed(given: Given) -> Given:
    """``a,b`` as a list."""
    if given.name not in _LISTED:
        return given
    value = given.value
    words = list(value) if isinstance(value, tuple | list) else [value]
    parts = [part.strip() for word in words for part in str(word).split(",")]
    return replace(given, value=[part for part in parts if part])


def _grid(given: Given) -> dict[str, list[Any]]:
    """``NAME=V1,V2`` of the command line, or a mapping of a file."""
    if isinstance(given.value, Mapping):
        found = {str(name): value if isinstance(value, list) else [value] for name, value in given.value.items()}
    else:
        words = [given.value] if isinstance(given.value, str) else list(given.value or [])
        found = {}
        for word in words:
            name, equals, text = str(word).partition("=")
            if not equals or not name.strip("- "):
                raise SettingError(f"{given.label} {word}: write it as {given.label} NAME=VALUE,VALUE,...")
            found[name.removeprefix("--")] = [one.strip() for one in text.split(",") if one.strip()]
    if not found:
        raise SettingError(f"{given.label} needs a setting and its values: {given.label} beta=0.05,0.1")
    for name, values in found.items():
        if not values:
            raise SettingError(f"{given.label} {name} has no values")
        if any(values.count(one) > 1 for one in values):
            raise SettingError(f"{given.label} {name} names a value twice")
    return {name.replace("-", "_"): values for name, values in found.items()}


def _methods(given: Given) -> dict[str, list[Given]]:
    """Settings of single methods in a file."""
    if not isinstance(given.value, Mapping):
        raise SettingError(f"{given.label} must hold a method and its settings on each line; it is for the suite file")
    found = {}
    for method, settings in given.value.items():
        if not isinstance(settings, Mapping):
            raise SettingError(f"{given.label}: {method} must hold lines of 'name: value'")
        found[str(method)] = [
            Given(str(name).replace("-", "_"), value, "file", f"{given.file}: {method}")
            for name, value in settings.items()
        ]
    return found


def words_of(values: Mapping[str, Any]) -> list[str]:
    """Settings as one would type them."""
    found: list[str] = []
    for name, value in values.items():
        found.append(f"--{name}")
        items = value if isinstance(value, list) else [value]
        found += [one if isinstance(one, str) else json.dumps(one) for one in items]
    return found
