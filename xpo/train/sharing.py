"""Settings of a command that does not train: its own, and some of training's, read and refused in the same way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xpo.errors import SettingError, did_you_mean
from xpo.train import rules
from xpo.train.settings import ModelSettings, RolloutSettings, RunSettings
from xpo.train.sources import Given
from xpo.train.vocabulary import Slot, read_value, slots_of

#: Section -> class of training's settings that have it, and the names that a command takes of them.
Shared = Mapping[str, tuple[type[Any], tuple[str, ...]]]


@dataclass(frozen=True)
class CommandSettings:
    """All settings of one run of a command.

    Attributes:
        own: those of the command alone.
        run: where the data is; the rest of it is of no concern here.
        model: how models are loaded.
        rollout: how completions are sampled and judged.
        changed: who gave each setting another value than its default.
    """

    own: Any
    run: RunSettings
    model: ModelSettings
    rollout: RolloutSettings
    changed: Mapping[str, Given] = field(default_factory=dict)

    @staticmethod
    def slots() -> Mapping[str, Slot]:
        """The settings there are."""
        raise NotImplementedError

    def value(self, name: str) -> Any:
        """The setting ``name``."""
        parts = (self.own, self.rollout, self.model, self.run)
        return next(getattr(part, name) for part in parts if hasattr(part, name))

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, as JSON values."""
        values = {name: self.value(name) for name in self.slots()}
        plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
        return plain

    def refuse(self, names: Iterable[str], why: str) -> None:
        """Raise where one of some settings was given, as it has no effect."""
        rules.refuse(names, self.changed, why)


def slots_with(command: str, own: type[Any], shared: Shared) -> dict[str, Slot]:
    """The settings of a command: its own, in a section of its name, and those it shares with training."""
    found = slots_of(command, own)
    for section, (cls, names) in shared.items():
        there = slots_of(section, cls)
        found |= {name: there[name] for name in names}
    return found


@dataclass(frozen=True)
class Found:
    """What sources say.

    Attributes:
        sections: section -> name -> value, of what was given.
        changed: who gave each setting another value than its default.
    """

    sections: Mapping[str, Mapping[str, Any]]
    changed: Mapping[str, Given]

    def of(self, section: str) -> Mapping[str, Any]:
        """What was given of a section."""
        return self.sections.get(section, {})


def found_in(
    sources: Sequence[Given],
    command: str,
    known: Mapping[str, Slot],
    aliases: Mapping[str, str],
    joined: Mapping[str, Callable[[Any], list[Any]]] | None = None,
) -> Found:
    """The value of every setting that was given: that of the last source that set it.

    Args:
        aliases: other names -> settings.
        joined: settings whose flag may be repeated -> how one value is made a list; the lists are joined.

    Raises:
        SettingError: something was written that cannot be honoured; the message says what to write instead.
    """
    values: dict[str, Any] = {}
    by: dict[str, Given] = {}
    for given in sources:
        name = aliases.get(given.name, given.name)
        if name not in known:
            hint = did_you_mean(f"--{name}", [f"--{word}" for word in (*known, *aliases)])
            raise SettingError(
                f"{given.label} is not a setting of xpo {command}.{hint} `xpo {command} --help` lists what there is"
            )
        before = by.get(name)
        if before is not None and before.origin == given.origin and before.name != given.name:
            raise SettingError(f"{before.label} and {given.label} are two names of one setting; give one of them")
        value = read_value(given, known[name].hint)
        if joined and name in joined:
            again = before is not None and before.origin == given.origin == "flag"
            value = [*(values[name] if again else []), *joined[name](value)]
        values[name], by[name] = value, given
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        sections.setdefault(known[name].section, {})[name] = value
    return Found(sections, {name: given for name, given in by.items() if values[name] != known[name].default})
