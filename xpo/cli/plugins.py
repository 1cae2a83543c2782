"""``xpo plugins``: installed plugins, what they bring, and what failed."""

from __future__ import annotations

import argparse
import json
from typing import Any

from xpo.plugins import Registry, load


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
            {**vars(supplier), "brings": [{"kind": kind, "name": name} for kind, name in brought]}
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
        (supplier.distribution, supplier.version, supplier.entry_point, supplier.module, _brings(brought))
        for supplier, brought in registry.suppliers.items()
    ]
    console().print(table(("package", "version", "entry point", "module", "brings"), rows))
    if registry.failures:
        failures = [(str(failure.supplier), failure.what, failure.reason) for failure in registry.failures]
        console().print("\nFailures\n")
        console().print(table(("package", "missing", "reason"), failures))


def _brings(brought: list[tuple[str, str]]) -> str:
    kinds = dict.fromkeys(kind for kind, _ in brought)
    parts = []
    for kind in kinds:
        names = [name for found, name in brought if found == kind]
        parts.append(f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names)}")
    return "; ".join(parts) or "nothing"
