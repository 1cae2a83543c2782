"""``import xpo`` gives every word, quickly, and the same to a type checker as to Python."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import xpo

HEAVY = "torch transformers trl peft accelerate datasets bitsandbytes matplotlib rich"


def test_every_word_can_be_had() -> None:
    for word in xpo.__all__:
        assert getattr(xpo, word) is not None
        assert word in dir(xpo)


def test_a_type_checker_sees_the_same_words() -> None:
    tree = ast.parse(Path(inspect.getfile(xpo)).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lazy = {word: f"{module}.{word}" for word, module in xpo._HOME.items()}
    lazy |= {"errors": "xpo.errors", "math": "xpo.api.math", "train": "xpo.train.run.train"}
    assert seen == lazy


def test_an_unknown_word_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'xpo' has no attribute 'nothing'"):
        _ = xpo.nothing  # type: ignore[attr-defined]  # the mistake


def test_importing_xpo_and_its_hooks_is_light() -> None:
    code = f"""
import sys, xpo, xpo.cli, xpo.plugins, xpo.api.hookspecs, xpo.errors
from xpo import hookimpl, Command, Group
print(*(name for name in {HEAVY.split()!r} if name in sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


@pytest.mark.parametrize("first", ["import xpo.train.record", "from xpo import train", "import xpo"])
def test_train_can_be_called_whatever_was_imported_first(first: str) -> None:
    code = f"""
{first}
import xpo, xpo.train.run
assert callable(xpo.train) and xpo.train.run.train
xpo.train.run.train = lambda *args, **kwargs: (args, kwargs)
print(xpo.train('a', b=1))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(('a',), {'b': 1})\n"


def test_train_shows_its_real_signature() -> None:
    run = importlib.import_module("xpo.train.run")
    assert inspect.signature(importlib.import_module("xpo").train) == inspect.signature(run.train)
