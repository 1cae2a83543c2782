"""From what was written to ``Settings``: flags, settings files and Python keywords take the same path."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xpo.errors import PluginError, SettingError
from xpo.plugins import Entry, Registry, load
from xpo.train.checks import check
from xpo.train.settings import (
    TESTBED,
    ModelSettings,
    RolloutSettings,
    RunSettings,
    Settings,
    TrainingArguments,
    embedded,
    output_directory,
)
from xpo.train.sources import Given, from_argv, from_mapping
from xpo.train.trl_flags import ALIASES
from xpo.train.vocabulary import Vocabulary, read_value

#: Settings in whose place Python may pass an object; there is no name for a tokenizer.
OBJECTS = (
    "model_name_or_path",
    "dataset_name",
    "eval_dataset",
    "replay_dataset",
    "retain_dataset",
    "reference_model",
    "reward",
    "judge",
    "tokenizer",
)
_OBJECT_ALIASES = {"train_dataset": "dataset_name", "processing_class": "tokenizer"}


@dataclass
class Found:
    """What remains of all sources: values by setting, who gave them, and objects that Python passed."""

    values: dict[str, Any] = field(default_factory=dict)
    by: dict[str, Given] = field(default_factory=dict)
    objects: dict[str, Any] = field(default_factory=dict)


def parse(argv: Sequence[str]) -> Settings:
    """Settings of a command line."""
    return settle(from_argv(argv))


def from_keywords(algo: str, model: Any = None, dataset: Any = None, **settings: Any) -> Settings:
    """Settings of a call from Python.

    ``model``, ``dataset``, ``eval_dataset``, ``replay_dataset``, ``retain_dataset``, ``reference_model``, ``reward``,
    ``judge`` and ``tokenizer`` may be objects, and ``config`` a settings file.
    """
    named = {name: value for name, value in (("model", model), ("dataset", dataset)) if value is not None}
    return settle(from_mapping({"algo": algo, **named, **settings}))


def settle(sources: Sequence[Given]) -> Settings:
    """Give every setting its value: the last source that set it, else a preset, else the method's, else the default.

    Raises:
        SettingError: something was written that cannot be honoured; the message says what to write instead.
    """
    registry = load()
    entry = _entry(_method(sources, registry), registry)
    vocabulary = Vocabulary(entry.cls, registry, online(sources))
    found = Found()
    for given in sources:
        for one in vocabulary.translate(given):
            _take(one, vocabulary, found)
    settings = _build(entry, vocabulary, found)
    check(settings, {name: given for name, given in found.by.items() if _differs(name, found, vocabulary)})
    if settings.run.disable_dropout:
        settings.model.lora_dropout = 0.0  # what is written into an adapter is what it was trained with
    return settings


def _differs(name: str, found: Found, vocabulary: Vocabulary) -> bool:
    """Whether a setting was given another value than its default, and so must have an effect."""
    return name in found.objects or found.values[name] != vocabulary.slots[name].default


def _method(sources: Sequence[Given], registry: Registry) -> str:
    chosen = [given for given in sources if given.name == "algo"]
    if not chosen:
        raise SettingError(f"choose a method with --algo: {', '.join(sorted(registry.listed('algorithm')))}")
    return str(read_value(chosen[-1], str))


def _entry(name: str, registry: Registry) -> Entry:
    """The method called ``name``.

    Raises:
        PluginError: there is none; where it is a kind of model or of data, the message lists the methods of that kind.
    """
    known = {called: registry.algorithms[called].cls for called in registry.listed("algorithm")}
    if name not in known and registry.reason("algorithm", name) is None:
        for what, kind in (("train a {} model", "model"), ("learn from {}", "data")):
            alike = [called for called, cls in known.items() if getattr(cls, kind) == name]
            if alike and name != "policy":
                raise PluginError(
                    f"there is no algorithm '{name}'; those that {what.format(name)} are {', '.join(alike)}"
                )
    return registry.algorithm(name)


def online(sources: Sequence[Given]) -> bool:
    """Whether a method of data is to learn from samples."""
    chosen = [given for given in sources if given.name == "online"]
    return bool(chosen) and bool(read_value(chosen[-1], bool))


def _take(given: Given, vocabulary: Vocabulary, found: Found) -> None:
    """Let a setting replace what earlier sources said about it."""
    if given.origin == "keyword":
        name = _OBJECT_ALIASES.get(given.name) or vocabulary.resolve(given.name)
        if name in OBJECTS and not _is_name(given.value):
            several = name == "reward" and not isinstance(given.value, (list, tuple))
            found.objects[name] = [given.value] if several else given.value
            found.values.pop(name, None)
            found.by[name] = given
            return
    taken = vocabulary.read(given)
    if taken is None:
        return
    name, value = taken
    before = found.by.get(name)
    if before is not None and before.origin == given.origin and before.name != given.name:
        if not isinstance(value, list):
            raise SettingError(f"{before.label} and {given.label} are two names of one setting; give one of them")
        value = [*found.values[name], *value]  # a reward model and reward functions add up
    found.objects.pop(name, None)
    found.values[name], found.by[name] = value, given


def _build(entry: Entry, vocabulary: Vocabulary, found: Found) -> Settings:
    def section(name: str) -> dict[str, Any]:
        slots = vocabulary.section(name)
        return {key: value for key, value in found.values.items() if key in slots}

    algorithm = entry.cls
    run = _make("run", RunSettings, section("run"))
    model = _make("model", ModelSettings, section("model"))
    if "model_name_or_path" in found.objects:
        model.model_name_or_path = _origin(found.objects["model_name_or_path"])  # its tokenizer is there
    named = {**found.values, **found.objects}
    training = {"output_dir": output_directory(named["algo"]), **_recommended(vocabulary, lora=model.use_peft)}
    if named.get("model_name_or_path") is None and embedded(named.get("dataset_name")):
        training.update(TESTBED)
    training.update(section("training"))
    if training.get("eval_steps") is not None:
        training.setdefault("eval_strategy", "steps")  # an interval is given to be used
    return Settings(
        entry=entry,
        run=run,
        rollout=_make("rollout", RolloutSettings, section("rollout")) if vocabulary.samples else None,
        model=model,
        training=_make("training", TrainingArguments, training),
        algorithm=_make(algorithm.name, algorithm.Config, section("algorithm")),
        given=frozenset(named),
        objects=found.objects,
        notes=(*vocabulary.notes, *_without_dropout(run, model, found)),
    )


def _without_dropout(run: RunSettings, model: ModelSettings, found: Found) -> Iterator[str]:
    """A dropout that was asked for beside the switch that turns it off: taken, as TRL does, and told."""
    if run.disable_dropout and found.values.get("lora_dropout") and model.use_peft:
        label = found.by["lora_dropout"].label
        yield (
            f"{label} {model.lora_dropout:g} changes nothing: dropout is off, in the adapters too; "
            f"{found.by['lora_dropout'].spell('disable_dropout')} false turns it on"
        )


def _recommended(vocabulary: Vocabulary, *, lora: bool) -> dict[str, Any]:
    """Training arguments the method's authors recommend; ten times the default learning rate for adapters."""
    algorithm, slots = vocabulary.algorithm, vocabulary.section("training")
    chosen: dict[str, Any] = {"learning_rate": 1e-5} if lora else {}
    for name, value in {**algorithm.training, **(algorithm.lora_training if lora else {})}.items():
        setting = ALIASES.get(name, name)
        if setting not in slots:
            raise PluginError(f"algorithm '{algorithm.name}' recommends '{name}', which is not a training argument")
        chosen[setting] = value
    return chosen


def _make(what: str, cls: type[Any], values: Mapping[str, Any]) -> Any:
    try:
        return cls(**values)
    except SettingError as error:
        raise SettingError(f"{what}: {error}") from None
    except (ValueError, TypeError, NotImplementedError, RuntimeError, ImportError, OSError) as error:
        raise SettingError(f"{what} settings: {error}") from error


def _origin(model: Any) -> str | None:
    """Where a model object was loaded from, if it says so."""
    return getattr(getattr(model, "config", None), "name_or_path", None) or None


def _is_name(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_is_name(item) for item in value)
    return value is None or isinstance(value, (str, os.PathLike))
