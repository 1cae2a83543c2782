"""The host knows its own hooks, and the settings of every run as they really are."""

from __future__ import annotations

import dataclasses
import importlib

from xpo.api import hookspecs
from xpo.plugins import load
from xpo.plugins.contract import OWNERS, SAMPLING_OWNERS, field_names, reserved
from xpo.plugins.reading import KINDS


def test_every_hook_has_a_kind_and_a_sentence() -> None:
    specified = {name: spec for name, spec in vars(hookspecs).items() if name.startswith("xpo_")}
    assert set(specified) == set(KINDS)
    assert all(spec.__doc__ for spec in specified.values())


def test_reserved_names_are_all_fields_that_the_classes_have() -> None:
    for module, name in (*OWNERS, *SAMPLING_OWNERS):
        assert field_names(module, name), f"{module}.{name} declares no fields"
        actual = {field.name for field in dataclasses.fields(getattr(importlib.import_module(module), name))}
        assert actual <= set(reserved(True)), f"{module}.{name}"


def test_the_installed_plugins_load() -> None:
    registry = load()
    own = [supplier.entry_point for supplier in registry.suppliers if supplier.distribution == "xpo"]
    assert own == ["lm-eval", "testbed", "zoo"]
    assert not [failure for failure in registry.failures if failure.supplier.distribution == "xpo"]
