"""``xpo plugins``: installed plugins, what they bring, and what failed."""

from __future__ import annotations

import argparse
import json
from typing import Any

from xpo.plugins import Registry, load
from xpo.plugins.registry import Supplier


def run(argv: list[str]) -> int:
    """Print plugins; the exit status."""
    parser = argparse.ArgumentParser(
        "xpo plugins", description="List installed plugins, what they bring and what failed."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    registry = load()
    if args.json:
        print(json.dumps(as_json(registry), indent=2))
    else:
        _show(registry)
    return 0


def as_json(registry: Registry) -> dict[str, Any]:
    """Suppliers and failures as JSON values."""
    return {
        "plugins": [
            {**vars(supplier), "brings": [{"kind": kind, "name": name} for kind, name in _called(supplier, brought)]}
            for supplier, brought in registry.suppliers.items()
        ],
        "failures": [
            {**vars(failure.supplier), "kind": failure.kind, "name": failure.name, "reason": failure.reason}
            for failure in registry.failures
        ],
    }


def _show(registry: Registry) -> None:
    from xpo.cli.console import console
    from xpo.train.tables import table

    rows = [
        (
            supplier.distribution,
            supplier.version,
            supplier.entry_point,
            supplier.module,
            _brings(_called(supplier, brought)),
        )
        for supplier, brought in registry.suppliers.items()
    ]
    console().print(table(("package", "version", "entry point", "module", "brings"), rows))
    if registry.failures:
        failures = [(str(failure.supplier), failure.what, failure.reason) for failure in registry.failures]
        console().print("\nFailures\n")
        console().print(table(("package", "missing", "reason"), failures))


def _called(supplier: Supplier, brought: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What a plugin brings, by the names that call it: a command named as one of xpo's own needs its package."""
    from xpo.cli import COMMANDS

    return [
        (kind, f"{supplier.distribution}:{name}" if kind == "command" and name in COMMANDS else name)
        for kind, name in brought
    ]


def _brings(brought: list[tuple[str, str]]) -> str:
    kinds = dict.fromkeys(kind for kind, _ in brought)
    parts = []
    for kind in kinds:
        names = [name for found, name in brought if found == kind]
        parts.append(f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names)}")
    return "; ".join(parts) or "nothing"
