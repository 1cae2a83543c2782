"""Load every plugin on its own and give what it brings its names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from xpo.errors import PluginError, did_you_mean
from xpo.plugins.reading import GROUP, KINDS, read
from xpo.plugins.registry import Entry, Failure, Registry, Supplier

FIRST_PARTY = "xpo"

T = TypeVar("T")
Found = list[tuple[str, Supplier, T]]


@cache
def load() -> Registry:
    """Everything that installed plugins bring. Computed once a process; ``load.cache_clear()`` starts over."""
    registry = Registry()
    found: dict[str, Found[Any]] = {hook: [] for hook in KINDS}
    for supplier, entry_point in _chosen(registry.failures):
        registry.suppliers[supplier] = []
        for hook, name, value in read(supplier, entry_point, registry.failures):
            if any((name, supplier.distribution) == (other, owner.distribution) for other, owner, _ in found[hook]):
                reason = "the package already brings one of that name, and the first is kept; rename one of them"
                registry.failures.append(Failure(supplier, KINDS[hook], name, reason))
            else:
                found[hook].append((name, supplier, value))
    entries = [(name, supplier, Entry(cls, supplier)) for name, supplier, cls in found["xpo_algorithms"]]
    registry.algorithms = _named(registry, "algorithm", entries)
    registry.rewards = _named(registry, "reward", found["xpo_rewards"])
    registry.judges = _named(registry, "judge", found["xpo_judges"])
    registry.datasets = _named(registry, "data set", found["xpo_datasets"])
    registry.evaluators = _named(registry, "evaluator", found["xpo_evaluators"])
    registry.commands = _named(registry, "command", found["xpo_commands"])
    if registry.failures and os.environ.get("XPO_STRICT_PLUGINS", "") not in ("", "0"):
        raise PluginError("a plugin failed and XPO_STRICT_PLUGINS is set: " + "; ".join(map(str, registry.failures)))
    return registry


def _named(registry: Registry, kind: str, found: Found[T]) -> dict[str, T]:
    """xpo's own names are bare; a stranger's are qualified, and bare too where nobody else has that name."""
    own = {name for name, supplier, _ in found if supplier.distribution == FIRST_PARTY}
    strangers = [name for name, supplier, _ in found if supplier.distribution != FIRST_PARTY]
    names: dict[str, T] = {}
    for name, supplier, value in found:
        qualified = f"{supplier.distribution}:{name}"
        stranger = supplier.distribution != FIRST_PARTY
        bare = not stranger or (name not in own and strangers.count(name) == 1)
        if bare:
            names[name] = value
        elif name not in own:
            registry.ambiguous.setdefault((kind, name), []).append(qualified)
        if stranger:
            names[qualified] = value
        registry.suppliers[supplier].append((kind, name if bare else qualified))
    return names


def _chosen(failures: list[Failure]) -> Iterator[tuple[Supplier, EntryPoint]]:
    """The entry points to load, xpo's own first."""
    limit = os.environ.get("XPO_PLUGINS")
    wanted = None if limit is None else {_normal(word) for word in limit.split(",") if word.strip()}
    points = [(_supplier(entry_point), entry_point) for entry_point in entry_points(group=GROUP)]
    points.sort(key=lambda p: (p[0].distribution != FIRST_PARTY, p[0].distribution, p[0].entry_point))
    installed: set[str] = set()
    for supplier, entry_point in points:
        words = {supplier.distribution, _normal(supplier.entry_point)}
        installed |= words
        if wanted is None or supplier.distribution == FIRST_PARTY or words & wanted:
            yield supplier, entry_point
    for word in sorted((wanted or set()) - installed):
        reason = f"no package or entry point '{word}' is installed.{did_you_mean(word, installed)}"
        failures.append(Failure(Supplier(word, "", word, ""), "XPO_PLUGINS", "", reason))


def _supplier(entry_point: EntryPoint) -> Supplier:
    # What a half-removed package leaves behind may have entry points but no name or version.
    metadata: Any = {} if entry_point.dist is None else entry_point.dist.metadata
    name, version = metadata.get("Name") or "unknown", metadata.get("Version") or ""
    return Supplier(_normal(name), version, entry_point.name, entry_point.value)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
