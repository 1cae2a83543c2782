"""What an algorithm must be before xpo offers it: the checks that need no data and no model."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from xpo.api.groups import KINDS
from xpo.errors import did_you_mean

NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

#: Dataclasses whose fields are flags of every run, by module.
OWNERS = (
    ("xpo.train.settings", "RunSettings"),
    ("xpo.train.settings", "ModelSettings"),
    ("xpo.train.settings", "TrainingArguments"),
    ("transformers.training_args", "TrainingArguments"),
    ("trl.trainer.model_config", "ModelConfig"),
)
#: The same for methods that sample.
SAMPLING_OWNERS = (("xpo.train.settings", "RolloutSettings"),)

#: What a method can train.
_MODELS = ("policy", "reward", "preference")
#: Attributes of a class that are dictionaries, and those that are tuples of names.
_DICTIONARIES = ("metrics", "training", "lora_training", "aliases", "accepts", "extras", "golden", "functions")
_TUPLES = ("raises", "lowers", "columns")
#: Words of the command line that stand for no field of their own.
_WORDS = ("config", "dataset", "help", "model")


def problem(cls: object) -> str | None:
    """Why ``cls`` cannot be an algorithm, or None."""
    from xpo.api.algorithm import Algorithm, Needs, Paper

    if not isinstance(cls, type) or not issubclass(cls, Algorithm):
        return f"{cls!r} is not a subclass of xpo.Algorithm"
    missing = [word for word in ("name", "summary", "paper", "equation", "data") if not hasattr(cls, word)]
    if missing:
        return f"{cls.__name__} does not set {', '.join(missing)}"
    if not isinstance(cls.name, str) or not NAME.fullmatch(cls.name):
        return f"{cls.__name__}.name is {cls.name!r}; use lower case letters, digits, '_' and '-'"
    for word in ("summary", "equation"):
        text = getattr(cls, word)
        if not isinstance(text, str) or len(text.strip().splitlines()) != 1:
            return f"{cls.__name__}.{word} is {text!r}; it must be one line of text"
    paper = cls.paper
    if not isinstance(paper, Paper) or [type(value) for value in vars(paper).values()] != [str, str, int]:
        return f"{cls.__name__}.paper is {paper!r}; it must be an xpo.Paper(title, url, year)"
    if cls.data not in KINDS:
        return f"{cls.__name__}.data is {cls.data!r}; it must be one of {', '.join(KINDS)}." + (
            did_you_mean(cls.data, KINDS) if isinstance(cls.data, str) else ""
        )
    if not isinstance(cls.needs, Needs):
        return f"{cls.__name__}.needs is {cls.needs!r}; it must be an xpo.Needs"
    if cls.data == "rollouts" and cls.needs.samples < 1:
        return f"{cls.__name__} learns from rollouts but needs no samples; set needs = Needs(samples=K)"
    if cls.loss is Algorithm.loss:
        return f"{cls.__name__} does not implement loss(self, batch, policy, reference)"
    try:
        inspect.signature(cls.loss).bind(*("self", "batch", "policy", "reference"))
    except TypeError as error:
        return f"{cls.__name__}.loss cannot be called with (self, batch, policy, reference): {error}"
    if cls.model not in _MODELS:
        return f"{cls.__name__}.model is {cls.model!r}; it must be one of {', '.join(_MODELS)}"
    for word in _DICTIONARIES:
        if not _named(getattr(cls, word)):
            return f"{cls.__name__}.{word} is {getattr(cls, word)!r}; it must be a dictionary whose keys are texts"
    for word in _TUPLES:
        names = getattr(cls, word)
        if not isinstance(names, (tuple, list)) or not all(isinstance(name, str) for name in names):
            return f"{cls.__name__}.{word} is {names!r}; it must be a tuple of names, such as ('chosen',)"
    return _config_problem(cls.__name__, cls.Config, cls.data == "rollouts")


def _named(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _config_problem(owner: str, config: Any, rollouts: bool) -> str | None:
    from xpo.api.algorithm import Config

    if not isinstance(config, type) or not issubclass(config, Config) or not is_dataclass(config):
        return f"{owner}.Config is {config!r}; it must be a dataclass that inherits from xpo.Config"
    if config is not Config and "__dataclass_fields__" not in vars(config):
        return f"{owner}.Config ({config.__name__}) lacks @dataclass; its settings would not be seen"
    for field in fields(config):
        if field.default is MISSING and field.default_factory is MISSING:
            return (
                f"{owner}.Config: the setting '{field.name}' has no default; write {field.name} = option(default, help)"
            )
        if not isinstance(field.metadata.get("help", ""), str):
            return f"{owner}.Config: the help of the setting '{field.name}' is no text; write option(default, 'help')"
        taken = reserved(rollouts).get(field.name)
        if taken:
            return (
                f"{owner}.Config: the setting '{field.name}' is also a setting of {taken}, and one flag cannot "
                "mean both; give it another name"
            )
    try:
        config()
    except Exception as error:
        return f"{owner}.Config: its own defaults are refused: {error}"
    return None


@cache
def reserved(rollouts: bool) -> Mapping[str, str]:
    """Names that a setting of an algorithm cannot have -> whose they are."""
    owners = (*OWNERS, *SAMPLING_OWNERS) if rollouts else OWNERS
    taken = {name: f"{module.partition('.')[0]} ({cls})" for module, cls in owners for name in field_names(module, cls)}
    return taken | dict.fromkeys(_WORDS, "the command line")


@cache
def field_names(module: str, name: str) -> tuple[str, ...]:
    """Fields that the dataclass ``name`` in ``module`` declares itself.

    Read from the source where there is one: importing these modules takes seconds, and some stand above this one.
    """
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return tuple(
                    line.target.id
                    for line in node.body
                    if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
                )
    return tuple(field.name for field in fields(getattr(importlib.import_module(module), name)))
