"""What one plugin brings. Its code runs guarded: whatever it raises becomes the reason why something is missing."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import EntryPoint
from inspect import Parameter, signature
from types import SimpleNamespace
from typing import Any, TypeVar

import pluggy

from xpo.api import hookspecs
from xpo.errors import did_you_mean
from xpo.plugins.contract import NAME, problem
from xpo.plugins.registry import Failure, Supplier
from xpo.plugins.requirements import unmet
from xpo.plugins.things import unusable

GROUP = "xpo"
#: Hook -> what one thing is called that it brings.
KINDS = {
    "xpo_algorithms": "algorithm",
    "xpo_rewards": "reward",
    "xpo_judges": "judge",
    "xpo_datasets": "data set",
    "xpo_evaluators": "evaluator",
    "xpo_commands": "command",
}

T = TypeVar("T")


def read(supplier: Supplier, entry_point: EntryPoint, failures: list[Failure]) -> Iterator[tuple[str, str, Any]]:
    """The (hook, name, value) that one entry point brings. Its own plugin manager keeps it apart from all others."""
    before = len(failures)
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    part = "requirements"
    try:
        if reason := _guarded(lambda: unmet(entry_point.dist)):
            raise _Refused(reason)
        part = "import"
        plugin = _guarded(entry_point.load)
        part = "hooks"
        named, wrong = _guarded(lambda: _hooks(manager, plugin))
        failures += [Failure(supplier, part, "", reason) for reason in wrong]
        own = SimpleNamespace(**named)
        _guarded(lambda: manager.register(own))
    except _Refused as refused:
        failures.append(Failure(supplier, part, "", str(refused)))
        return
    hooks = [hook for caller in manager.get_hookcallers(own) or () if (hook := caller.name) in KINDS]
    if not hooks and len(failures) == before:
        reason = f"{entry_point.value} defines none of {', '.join(KINDS)}"
        failures.append(Failure(supplier, part, "", reason))
    for hook in hooks:
        check = _algorithm if hook == "xpo_algorithms" else _item
        try:
            for thing in _guarded(partial(_things, hook, getattr(manager.hook, hook))):
                try:
                    name, value = _guarded(partial(check, hook, thing))
                    yield hook, name, value
                except _Refused as refused:
                    failures.append(Failure(supplier, KINDS[hook], refused.name, str(refused)))
        except _Refused as refused:
            failures.append(Failure(supplier, hook, "", str(refused)))


class _Refused(Exception):
    def __init__(self, reason: str, name: object = "") -> None:
        super().__init__(reason)
        self.name = name if isinstance(name, str) else ""


def _guarded(call: Callable[[], T]) -> T:
    """The result of a stranger's code; whatever it raises becomes the reason to refuse it."""
    try:
        # What a plugin prints must not end up in the middle of --json.
        with _staying(), contextlib.redirect_stdout(sys.stderr):
            return call()
    except (KeyboardInterrupt, _Refused):
        raise
    except BaseException as error:  # a module that calls sys.exit() must not take xpo with it
        raise _Refused(_told(error)) from error


@contextlib.contextmanager
def _staying() -> Iterator[None]:
    """Be where the command was given when it is over: relative paths that the user gives are of there."""
    try:
        folder = os.open(".", os.O_RDONLY)
    except OSError:  # a folder that is gone cannot be gone back to
        yield
        return
    try:
        yield
    finally:
        os.fchdir(folder)
        os.close(folder)


def _told(error: BaseException) -> str:
    """An exception on one line; a stranger's may not even be able to say what it is."""
    try:
        return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    except Exception:
        return type(error).__name__


def _hooks(manager: pluggy.PluginManager, plugin: object) -> tuple[dict[str, Any], list[str]]:
    """The hooks of a plugin, and why others are none.

    pluggy passes over what is no hook without a word, so that a typing error would go unnoticed, and refuses all of a
    plugin for one hook that it cannot call.
    """
    named: dict[str, Any] = {}
    wrong: list[str] = []
    for name in dir(plugin):
        function = getattr(plugin, name, None)
        if not callable(function) or name.startswith("__"):
            continue
        marks = manager.parse_hookimpl_opts(plugin, name)
        hook = (marks and marks["specname"]) or name
        if hook in KINDS and marks is None:
            wrong.append(f"{name}() is not marked; write @xpo.hookimpl above it")
        elif hook not in KINDS and (marks is not None or name.startswith("xpo_")):
            likely = difflib.get_close_matches(hook, KINDS, n=1)  # all are alike in some letters
            wrong.append(f"there is no hook {hook}().{did_you_mean(hook, likely)} The hooks are {', '.join(KINDS)}")
        elif marks is not None and (asked := _asked(function)):
            wrong.append(f"{name}({', '.join(asked)}) asks for arguments, and hooks get none; write def {name}():")
        elif marks is not None:
            named[name] = function
    return named, wrong


def _asked(function: Callable[..., object]) -> list[str]:
    """Names of the arguments that a function cannot do without."""
    open_ended = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    parameters = signature(function).parameters.values()
    return [one.name for one in parameters if one.default is one.empty and one.kind not in open_ended]


def _things(hook: str, caller: Callable[[], list[Any]]) -> list[Any]:
    """The single things a hook returns: pluggy gives a list of one result, or of none where that was None."""
    results = caller()
    result = results[0] if results else None
    if hook == "xpo_algorithms" and isinstance(result, (list, tuple)):
        return list(result)
    if hook != "xpo_algorithms" and isinstance(result, Mapping):
        return list(result.items())
    wanted = "a list of Algorithm classes" if hook == "xpo_algorithms" else f"a dictionary of {KINDS[hook]}s by name"
    raise _Refused(f"it returned {result!r}; return {wanted}")


def _algorithm(hook: str, cls: Any) -> tuple[str, Any]:
    if reason := problem(cls):
        raise _Refused(reason, getattr(cls, "name", ""))
    return cls.name, cls


def _item(hook: str, item: tuple[Any, Any]) -> tuple[str, Any]:
    name, value = item
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise _Refused(f"{name!r} is no name; use lower case letters, digits, '_' and '-'", name)
    if reason := unusable(hook, value):
        raise _Refused(reason, name)
    return name, value
