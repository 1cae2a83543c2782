"""The first-party algorithms: one file, one algorithm, found through the entry point a stranger's package would use."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from xpo import Algorithm, hookimpl

#: The folders, by the kind of data their methods learn from, in the order methods are listed.
FOLDERS = ("pairs", "labels", "lists", "forget", "demonstrations", "rewards", "rollouts")


@hookimpl
def xpo_algorithms() -> list[type[Algorithm[Any]]]:
    """Every algorithm that a file of the zoo defines."""
    found: list[type[Algorithm[Any]]] = []
    for folder in FOLDERS:
        package = importlib.import_module(f"{__name__}.{folder}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            members = vars(importlib.import_module(module.name)).values()
            found += [one for one in members if _is_algorithm(one) and one.__module__ == module.name]
    return found


def _is_algorithm(member: object) -> bool:
    # A class without a name is the common part of others.
    return isinstance(member, type) and issubclass(member, Algorithm) and "name" in vars(member)
