"""Where settings come from: the command line, a YAML file, Python keywords. All three become a list of ``Given``.

Imports nothing heavy, so that a file's ``env:`` is in place before the libraries that read it are imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from xpo.errors import SettingError


class Words(tuple[str, ...]):
    """The words after a flag as they were typed; none after a bare flag."""


@dataclass(frozen=True)
class Given:
    """One setting that somebody made.

    Attributes:
        name: the setting, with underscores.
        value: ``Words`` from the command line, a YAML value, or any object.
        origin: who made it.
        file: the file it stands in, if it stands in one.
    """

    name: str
    value: Any
    origin: Literal["flag", "file", "keyword"]
    file: str = ""

    @property
    def label(self) -> str:
        """How to name the setting in a message."""
        return {"flag": f"--{self.name}", "file": f"{self.file}: {self.name}", "keyword": f"{self.name}="}[self.origin]

    def spell(self, name: str) -> str:
        """Another setting, spelt as the source of this one spells them."""
        return f"--{name}" if self.origin == "flag" else name


def from_argv(argv: Sequence[str]) -> list[Given]:
    """Flags of a command line, preceded by those of its ``--config`` file: later ones win."""
    flags: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            flags.append((name.replace("-", "_"), [value] if equals else []))
        elif flags:
            flags[-1][1].append(word)
        else:
            raise SettingError(f"unexpected '{word}'; settings are written as --name value")
    files = [values for name, values in flags if name == "config"]
    if len(files) > 1 or any(len(values) != 1 for values in files):
        raise SettingError("--config takes one YAML file, once")
    found = from_file(files[0][0]) if files else []
    return found + [Given(name, Words(values), "flag") for name, values in flags if name != "config"]


def from_file(path: str) -> list[Given]:
    """Settings of a YAML file; variables under ``env:`` are put into the environment."""
    try:
        with open(path, encoding="utf-8") as stream:
            content = _content(yaml.SafeLoader(stream), path)
    except OSError as error:
        raise SettingError(f"--config {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"--config {path} is not valid YAML: {error}") from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise SettingError(f"--config {path} must hold lines of 'name: value', not a {type(content).__name__}")
    _set_environment(content.pop("env", None) or {}, path)
    found: dict[str, Given] = {}
    for key, value in content.items():
        name = str(key).removeprefix("--").replace("-", "_")
        if name == "config":
            raise SettingError(f"{path}: a settings file cannot name another one; give --config on the command line")
        if name in found:
            raise SettingError(f"{path}: '{name}' is set twice")
        found[name] = Given(name, value, "file", path)
    return list(found.values())


def _content(loader: yaml.SafeLoader, path: str) -> Any:
    """What a file holds. By itself YAML takes the last of two values of one name, and says nothing."""
    try:
        document = loader.get_single_node()
        if document is None:
            return None
        for mapping in _mappings(document):
            names: list[Any] = []
            for key, _ in mapping.value:
                if key.value in names:
                    raise SettingError(f"{path}, line {key.start_mark.line + 1}: '{key.value}' is set twice")
                names.append(key.value)
        return loader.construct_document(document)
    finally:
        loader.dispose()


def _mappings(node: yaml.Node) -> Iterator[yaml.MappingNode]:
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from _mappings(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mappings(value)


def from_mapping(settings: Mapping[str, Any]) -> list[Given]:
    """Python keywords, preceded by those of the file under ``config``: later ones win."""
    path = settings.get("config")
    found = [] if path is None else from_file(os.fspath(path))
    return found + [Given(name, value, "keyword") for name, value in settings.items() if name != "config"]


def _set_environment(variables: Any, path: str) -> None:
    if not isinstance(variables, dict):
        raise SettingError(f"{path}: 'env' must hold lines of 'NAME: value'")
    for name, value in variables.items():
        if value is None or isinstance(value, (dict, list)):
            raise SettingError(f"{path}: env: {name} must be one value")
        os.environ[str(name)] = str(value)
