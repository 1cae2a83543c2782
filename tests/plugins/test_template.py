"""``plugins/template`` is a whole package of a stranger, and just what ``xpo new`` writes for pairs."""

from __future__ import annotations

import tomllib

from tests.conftest import ROOT, MakePackage
from xpo.api.groups import KINDS
from xpo.plugins import load
from xpo.scaffold.names import Names
from xpo.scaffold.package import render
from xpo.testing import check_algorithm

FOLDER = ROOT / "plugins/template"
FILES = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir() if path.is_file()}
PROJECT = tomllib.loads(FILES["pyproject.toml"])["project"]


def test_it_is_what_xpo_new_writes() -> None:
    [name] = PROJECT["entry-points"]["xpo"]
    assert render(Names.of(name), "pairs") == FILES, (
        f"write it again: rm -r plugins/template && xpo new {name} --directory plugins/template"
    )


def test_installed_it_brings_one_method_that_keeps_its_promises(package: MakePackage) -> None:
    package(PROJECT["name"], FILES, PROJECT["entry-points"]["xpo"], PROJECT["version"])
    registry = load()
    assert not registry.failures
    [(supplier, brought)] = [(one, found) for one, found in registry.suppliers.items() if one.distribution != "xpo"]
    assert str(supplier) == f"{PROJECT['name']} {PROJECT['version']}"
    [(kind, name)] = brought
    assert kind == "algorithm"
    check_algorithm(registry.algorithm(name).cls).require()


def test_a_method_is_a_screenful() -> None:
    """Of lines with something on them; a newcomer reads the whole file before writing the first word."""
    for data in KINDS:
        source = render(Names.of("x_y"), data)["x_y.py"]
        assert len([line for line in source.splitlines() if line.strip()]) <= 66, data
