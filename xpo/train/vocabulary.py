"""The settings a run with one algorithm has, and what every other name that people write means for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from typing import Any, get_type_hints

from xpo.api.algorithm import Algorithm
from xpo.errors import PluginError, SettingError, did_you_mean
from xpo.plugins import Registry
from xpo.train.settings import SAMPLES, ModelSettings, RolloutSettings, RunSettings, TrainingArguments
from xpo.train.sources import Given
from xpo.train.translate import translated
from xpo.train.trl_flags import ALIASES, FOREIGN, REFUSED
from xpo.train.values import convert, members, plain, same

SECTIONS: Mapping[str, type[Any]] = {
    "run": RunSettings,
    "rollout": RolloutSettings,
    "model": ModelSettings,
    "training": TrainingArguments,
}


#: Methods that a message names when it names those that have a setting.
FEW = 8


@dataclass(frozen=True)
class Slot:
    """A setting that exists: the section it belongs to and what it takes."""

    section: str
    hint: Any
    field: Field[Any]

    @property
    def default(self) -> Any:
        """Its default."""
        return self.field.default if self.field.default_factory is MISSING else self.field.default_factory()


def slots_of(section: str, cls: type[Any]) -> dict[str, Slot]:
    """The settings that a dataclass declares."""
    hints = get_type_hints(cls)
    return {item.name: Slot(section, hints[item.name], item) for item in fields(cls) if item.init}


class Vocabulary:
    """The settings of a run with ``algorithm``: ``slots`` by name.

    What is taken and changes nothing is told in ``notes``.

    Raises:
        PluginError: the algorithm's own settings cannot be told from those of every run.
    """

    def __init__(self, algorithm: type[Algorithm[Any]], registry: Registry, online: bool = False) -> None:
        self.algorithm = algorithm
        self.registry = registry
        #: Whether completions are sampled while training.
        self.samples = online or algorithm.data == "rollouts"
        self.notes: list[str] = []
        common = {name: slot for section, cls in SECTIONS.items() for name, slot in slots_of(section, cls).items()}
        try:
            own = slots_of("algorithm", algorithm.Config)
        except (NameError, TypeError) as error:
            raise PluginError(f"algorithm '{algorithm.name}': types of {algorithm.Config.__name__}: {error}") from error
        for name in own:
            if name in ALIASES or (name in common and (common[name].section != "rollout" or self.samples)):
                raise PluginError(
                    f"algorithm '{algorithm.name}': its setting '{name}' has the name of a setting of every run; "
                    f"rename the field of {algorithm.Config.__name__}"
                )
        self.slots = {**common, **own}

    def section(self, name: str) -> dict[str, Slot]:
        """The settings of one section."""
        return {key: slot for key, slot in self.slots.items() if slot.section == name}

    def resolve(self, name: str) -> str:
        """The setting ``name`` stands for, or ``name`` itself. What the algorithm says comes first."""
        if name in self.slots and self.slots[name].section == "algorithm":
            return name
        if name in self.algorithm.aliases:
            return self.algorithm.aliases[name]
        return ALIASES[name] if ALIASES.get(name) in self.slots else name

    def translate(self, given: Given) -> list[Given]:
        """A setting in the words of xpo: what says the same, where the method has no setting of that name."""
        return [given] if self.resolve(given.name) in self.slots else translated(self._positive(given))

    def read(self, given: Given) -> tuple[str, Any] | None:
        """The setting that was given and its value; None for a name that changes nothing.

        Raises:
            SettingError: there is no such setting, or not for this algorithm, or not with this value.
        """
        given = self._positive(given)
        name = self.resolve(given.name)
        if name not in self.slots:
            self._foreign(given)
            return None
        slot = self.slots[name]
        if slot.section == "rollout" and not self.samples:
            if slot.default is False and read_value(given, slot.hint) is False:
                return None  # that is how it is
            others = ", ".join(key for key, cls in self._listed() if cls.data == "rollouts") or "none is installed"
            formed = f", of samples with {given.spell('online')}" if self.algorithm.data in SAMPLES else ""
            raise SettingError(
                f"{given.label} is for methods that sample completions while training ({others}); "
                f"{self.algorithm.name} learns from {self.algorithm.data}{formed}"
            )
        value = read_value(given, slot.hint)
        choices = slot.field.metadata.get("choices")
        if choices and value is not None and value not in choices:
            raise SettingError(f"{given.label} takes one of {', '.join(map(str, choices))}, not {value!r}")
        if given.name == "warmup_ratio" and value >= 1:  # as warmup_steps it would be a number
            raise SettingError(f"{given.label} is a share of all steps and must be below 1, not {value}")
        if name in REFUSED and not any(same(value, item) for item in (slot.default, *REFUSED[name].accepts)):
            raise SettingError(f"{given.label} cannot be honoured: {REFUSED[name].reason}")
        return name, value

    def _listed(self) -> list[tuple[str, type[Algorithm[Any]]]]:
        return [(name, self.registry.algorithms[name].cls) for name in self.registry.listed("algorithm")]

    def _positive(self, given: Given) -> Given:
        """``--no_flag`` as ``--flag false``, for flags that take true or false."""
        name = given.name.removeprefix("no_")
        bare = given.value is True or (isinstance(given.value, tuple) and not given.value)
        if name == given.name or self.resolve(given.name) in self.slots or not bare:
            return given
        setting = self.resolve(name)
        if setting in self.slots:
            switch = bool in members(self.slots[setting].hint)
        else:
            switch = name in FOREIGN and any(isinstance(item, bool) for item in FOREIGN[name].accepts)
        return replace(given, name=name, value=False) if switch else given

    def _foreign(self, given: Given) -> None:
        """Let a flag of another program pass that asks for what happens anyway; refuse every other."""
        name, value, algorithm = given.name, plain(given.value), self.algorithm
        if name in algorithm.accepts:
            allowed = algorithm.accepts[name]
            allowed = tuple(allowed) if isinstance(allowed, (list, tuple, set, frozenset)) else (allowed,)
            if any(same(value, item) for item in allowed):
                return
            raise SettingError(
                f"{given.label} {value}: {algorithm.name} is {name} {' or '.join(map(str, allowed))} and no other; "
                "choose the method with --algo (`xpo algos` lists them)"
            )
        known = FOREIGN.get(name)
        if known is not None and any(same(value, item) for item in known.accepts):
            return
        if known is not None and known.idle is not None and type(value) is known.idle:
            self.notes.append(f"{given.label} {value} changes nothing: {known.reason}")
            return
        parts = [item for item in algorithm.settings() if item.endswith(f".{name}")]
        if parts:
            raise SettingError(f"{given.label}: say whose, {' or '.join(given.spell(item) for item in parts)}")
        others = [key for key, cls in self._listed() if name in (*cls.settings(), *cls.aliases)]
        if len(others) > FEW:
            others = [*others[:FEW], f"{len(others) - FEW} others"]
        if others:
            own = ", ".join(given.spell(item) for item in algorithm.settings()) or "no settings of its own"
            raise SettingError(
                f"{given.label} is a setting of {', '.join(others)} and means nothing to {algorithm.name}; "
                f"{algorithm.name} has {own}"
            )
        if known is not None:
            raise SettingError(f"{given.label} cannot be honoured: {known.reason}")
        names = (*self.slots, *algorithm.aliases, *ALIASES)
        raise SettingError(
            f"{given.label} is not a setting of xpo train."
            f"{did_you_mean(given.spell(name), [given.spell(item) for item in names])} "
            f"`xpo train --algo {algorithm.name} --help` lists what there is"
        )


def read_value(given: Given, hint: Any) -> Any:
    """The value of a setting as its type.

    Raises:
        SettingError: it cannot be read as that.
    """
    try:
        return convert(given.value, hint)
    except ValueError as error:
        raise SettingError(f"{given.label} {error}") from None
