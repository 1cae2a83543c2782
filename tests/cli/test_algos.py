"""``xpo algos`` and ``xpo plugins``: everything is there, whole, and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests import tiny
from tests.conftest import MakePackage
from tests.plugins.sources import HEAD, algorithm, hook, plugin
from xpo.api.groups import Kind
from xpo.cli import main
from xpo.cli.algos import converted
from xpo.data.prepare import prepare
from xpo.data.sources import Rows
from xpo.errors import DataError
from xpo.plugins import load

LONG = "a summary that goes on and on " * 12
BODY = f"""
    summary = {LONG!r}
    needs = Needs(reference=True, least=2)
    metrics = {{"kl": "mean divergence"}}
    training = {{"learning_rate": 5e-7}}
    lora_training = {{"learning_rate": 5e-6}}
    aliases = {{"other": "scale"}}
"""


@pytest.fixture
def made(package: MakePackage) -> None:
    package("maker", {"maker.py": plugin("made", body=BODY)}, {"point": "maker"}, version="2.1")


@pytest.mark.usefixtures("made")
def test_the_list_is_whole_when_it_is_piped() -> None:
    done = subprocess.run([sys.executable, "-m", "xpo", "algos"], capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("made "))
    for cell in ("pairs", "a reference model, 2 prompts in a micro-batch", LONG.strip(), "example.org", "maker 2.1"):
        assert cell in line


@pytest.mark.usefixtures("made")
def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algos", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [found["name"] for found in listed] == load().listed("algorithm")
    assert next(found for found in listed if found["name"] == "made")["supplier"] == "maker 2.1"


@pytest.mark.usefixtures("made")
def test_one_method_says_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algos", "made"]) == 0
    text = capsys.readouterr().out
    for fact in (
        "L = 0",
        "https://example.org",
        "prompt, chosen, rejected",
        "a reference model",
        "--scale",
        "--other",
        "learning_rate 5e-07",
        "learning_rate 5e-06",
        "mean divergence",
        "maker 2.1",
        "xpo train --algo made ",
    ):
        assert fact in text, fact


@pytest.mark.parametrize("want", ["pairs", "labels", "lists", "forget", "demonstrations", "rollouts"])
def test_the_kinds_that_convert_are_those_that_are_read(want: Kind) -> None:
    """By data of every kind, for a method of each."""
    cls = next(entry.cls for entry in load().algorithms.values() if entry.cls.data == want and not entry.cls.extras)
    found = {}
    for kind in ("pairs", "labels", "lists", "forget", "demonstrations"):
        rows = [{**row, **({"split": "retain"} if kind == "forget" else {})} for row in tiny.rows(kind, 3)]
        try:
            read = prepare(Rows(rows, "rows"), want, tiny.tokenizer(), max_length=None, scored=cls.needs.scores)
        except DataError:
            continue
        if kind != want:
            found[kind] = read.conversion
    said = converted(cls)
    assert said.keys() == found.keys()
    # Data with a column of prompts is prompts without being converted.
    assert all(how in (said[kind], None if want == "rollouts" else said[kind]) for kind, how in found.items())


def test_what_a_method_is_made_of_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algos", "kto"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("made of")]
    assert [words[2] for words in shown] == ["pairs:"]
    assert main(["algos", "rloo"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("made of")]
    assert [words[2] for words in shown] == ["pairs,"]  # all in one line, since the same is done with all


@pytest.mark.usefixtures("made")
def test_one_method_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algos", "maker:made", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == {"scale": {"default": 1.0, "help": "x"}}
    assert found["example"].startswith("xpo train --algo maker:made ")
    asked = found["needs"]
    assert asked == {"reference": True, "least": 2}


def test_every_installed_method_can_be_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for name in load().listed("algorithm"):
        assert main(["algos", name]) == 0
        text = capsys.readouterr().out
        assert load().algorithms[name].cls.equation in text
        assert all(f"--{setting}" in text for setting in load().algorithms[name].cls.settings())


def test_failures_are_one_line_beside_other_output(package: MakePackage, capsys: pytest.CaptureFixture[str]) -> None:
    package("bad", {"bad.py": "raise ValueError('no')"}, {"bad": "bad"})
    assert main(["algos", "--json"]) == 0
    out, err = capsys.readouterr()
    json.loads(out)
    assert err == "xpo: 1 plugin problem (bad 1.0): `xpo plugins` says what is missing and why\n"


def test_plugins_shows_what_there_is_and_what_failed(package: MakePackage, capsys: pytest.CaptureFixture[str]) -> None:
    source = HEAD + algorithm("fine") + algorithm("wrong", cls="Wrong", body="    data = 'pear'")
    source += hook("[Made, Wrong]") + hook("{'r': len}", "xpo_rewards")
    package("half", {"half.py": source}, {"point": "half"}, version="3.0")
    assert main(["plugins"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    line = next(line for line in out.splitlines() if line.startswith("half "))
    assert "3.0" in line
    assert "algorithm fine; reward r" in line
    assert "algorithm 'wrong'" in out
    assert "Wrong.data is 'pear'" in out
    assert main(["plugins", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    half = next(one for one in found["plugins"] if one["distribution"] == "half")
    assert half["brings"] == [{"kind": "algorithm", "name": "fine"}, {"kind": "reward", "name": "r"}]
    assert [(one["distribution"], one["name"]) for one in found["failures"]] == [("half", "wrong")]
