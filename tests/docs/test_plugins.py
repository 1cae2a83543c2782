"""docs/plugins.md: it knows the hooks there are, and each example is a package that does what the page says."""

from __future__ import annotations

import inspect
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import xpo
from tests.conftest import ROOT, MakePackage
from xpo.api import hookspecs
from xpo.api.groups import KINDS
from xpo.cli import main
from xpo.plugins import load

PAGE = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: Hook -> its section.
SECTIONS = dict(re.findall(r"^## (xpo_\w+)\n(.*?)(?=^## )", PAGE, re.DOTALL | re.MULTILINE))
SPECIFIED = {name: spec for name, spec in vars(hookspecs).items() if name.startswith("xpo_")}
#: What a newcomer would have to wait for, and what says nothing about a hook.
SHORT = ["--eval_prompts", "0", "--sample_completions", "0", "--per_device_train_batch_size", "2"]


def blocks(section: str, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(section) if found == language]


def install(package: MakePackage, hook: str) -> None:
    [source] = blocks(SECTIONS[hook], "python")
    module = source.partition("\n")[0].removeprefix("# ").removesuffix(".py")
    package("from-the-page", {f"{module}.py": source}, {"example": module})


def record(folder: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(next(folder.glob("runs/*/run.json")).read_text())
    return found


def test_it_has_the_hooks_there_are_with_their_signatures() -> None:
    table = dict(re.findall(r"^\| `(xpo_\w+)(\(.*?\))` \| .* \| .* \|$", PAGE, re.MULTILINE))
    assert list(SECTIONS) == list(table) == list(SPECIFIED)
    for name, spec in SPECIFIED.items():
        signature = f"{name}{inspect.signature(spec)}".replace("'", "").replace("[Any]", "")
        assert f"`{signature}`" in SECTIONS[name]
        assert table[name] == f"({', '.join(inspect.signature(spec).parameters)})"
        assert "**Errors.**" in SECTIONS[name]


def test_it_has_the_attributes_of_an_algorithm() -> None:
    [table] = re.findall(r"^\| attribute \| \|\n(.*?)\n\n", PAGE, re.DOTALL | re.MULTILINE)
    named = [
        word for row in table.splitlines()[1:] for word in re.findall(r"`(\w+)`", row.strip("|").partition(" | ")[0])
    ]
    known = {*vars(xpo.Algorithm), *xpo.Algorithm.__annotations__}
    assert len(named) > 10
    assert set(named) <= known
    assert ", ".join(f"`{kind}`" for kind in KINDS) in table


#: Hook -> (kind, name) that its example brings.
BROUGHT = {
    "xpo_algorithms": ("algorithm", "contrast"),
    "xpo_rewards": ("reward", "brief"),
    "xpo_judges": ("judge", "shorter"),
    "xpo_datasets": ("data set", "sums"),
    "xpo_commands": ("command", "count"),
}


@pytest.mark.parametrize("hook", SPECIFIED)
def test_the_example_works(
    package: MakePackage, hook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(package, hook)
    assert main(["plugins", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["failures"] == []
    [own] = [one for one in found["plugins"] if one["distribution"] == "from-the-page"]
    kind, name = BROUGHT[hook]
    assert own["brings"] == [{"kind": kind, "name": name}]
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    out = ""
    for line in "".join(blocks(SECTIONS[hook], "bash")).splitlines():
        program, *words = shlex.split(line)
        assert program == "xpo"
        few = () if "--dataset" in words else ("--dataset", "testbed:size=20")
        assert main([*words, *((*SHORT, *few) if words[0] == "train" else ())]) == 0, line
        out += capsys.readouterr().out
    EFFECTS[hook](out, folder)


def algorithm_effect(out: str, folder: Path) -> None:
    assert "from-the-page 1.0" in out
    assert "nothing wrong" in out


def reward_effect(out: str, folder: Path) -> None:
    # A hundredth of a character each. Embedded reviews have some dozens of them; a list of one message would have 1.
    assert -5 < record(folder)["metrics"]["reward"] < -0.1


def judge_effect(out: str, folder: Path) -> None:
    # Tokens of the winners less those of the losers.
    assert record(folder)["metrics"]["judge/length_gap"] < 0


def dataset_effect(out: str, folder: Path) -> None:
    assert (record(folder)["data"]["origin"], record(folder)["data"]["rows"]) == ("sums:4[train]", 16)


def command_effect(out: str, folder: Path) -> None:
    assert out == "2\n"


EFFECTS = {
    "xpo_algorithms": algorithm_effect,
    "xpo_rewards": reward_effect,
    "xpo_judges": judge_effect,
    "xpo_datasets": dataset_effect,
    "xpo_commands": command_effect,
}


def test_errors_of_the_examples_are_messages(package: MakePackage, capsys: pytest.CaptureFixture[str]) -> None:
    install(package, "xpo_commands")
    assert main(["count", "one", "--least", "2"]) == 2
    assert capsys.readouterr().err == "xpo: 1 words are fewer than --least 2; give more\n"
    assert main(["count"]) == 2
    capsys.readouterr()
    install_again = blocks(SECTIONS["xpo_datasets"], "python")[0]
    package("other", {"sums.py": install_again}, {"sums": "sums"})
    assert main(["train", "--algo", "kto", "--dataset", "sums", "--output_dir", "never"]) == 2
    assert "xpo: sums has pairs and prompts, no labels; choose a method of these\n" in capsys.readouterr().err
    assert not Path("never").exists()


def test_the_examples_have_names_nobody_has() -> None:
    registry = load()
    brought = {pair for found in registry.suppliers.values() for pair in found}
    assert not brought & set(BROUGHT.values())


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
