"""What a user sees of packages that misbehave: other things go on, and the reason is where it is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import xpo
from tests.conftest import MakePackage
from tests.plugins.sources import HEAD, algorithm, hook, plugin
from xpo.cli import main
from xpo.plugins import load

#: What is wrong -> source, what is missing, and a part of the reason.
WRONG = {
    "fails to import": ("import nothing_of_that_name", "import", "No module named 'nothing_of_that_name'"),
    "needs a word xpo lacks": ("from xpo import Hologram", "import", "cannot import name 'Hologram' from 'xpo'"),
    "misspells a hook": (HEAD + hook("[]", "xpo_algorithm"), "hooks", "Did you mean 'xpo_algorithms'"),
    "asks for arguments in a hook": (
        HEAD + "@hookimpl\ndef xpo_algorithms(registry):\n    return []\n",
        "hooks",
        "xpo_algorithms(registry) asks for arguments, and hooks get none; write def xpo_algorithms():",
    ),
    "has a table that is none": (
        plugin("wanted", body="    aliases = None"),
        "algorithm 'wanted'",
        "Made.aliases is None; it must be a dictionary",
    ),
    "raises in a hook": (HEAD + hook("{}['key']"), "xpo_algorithms", "KeyError: 'key'"),
    "collides on a setting": (
        plugin("wanted", settings="    learning_rate: float = option(1.0, 'x')"),
        "algorithm 'wanted'",
        "'learning_rate' is also a setting of transformers (TrainingArguments)",
    ),
}


def make(package: MakePackage, source: str, requires: str = "") -> None:
    site = package("bad-package", {"bad_module.py": source}, {"wanted": "bad_module"})
    if requires:
        with (site / "bad_package-1.0.dist-info/METADATA").open("a") as metadata:
            metadata.write(f"Requires-Dist: {requires}\n")
        load.cache_clear()


@pytest.mark.parametrize("case", WRONG)
def test_the_reason_is_shown_where_it_is_looked_for(
    package: MakePackage, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    source, what, reason = WRONG[case]
    make(package, source)
    assert main(["plugins"]) == 0
    table = " ".join(capsys.readouterr().out.split())
    assert f"bad-package 1.0 {what} " in table
    assert reason in table
    for command in (["algos", "wanted"], ["check", "wanted"], ["train", "--algo", "wanted", "--output_dir", "never"]):
        assert main(command) == 2
        [*_, message] = capsys.readouterr().err.splitlines()
        assert message.startswith("xpo: ")
        assert "bad-package 1.0" in message
        assert reason in message
    assert not Path("never").exists()


@pytest.mark.parametrize("case", WRONG)
def test_commands_about_other_things_go_on_and_say_so(
    package: MakePackage, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    make(package, WRONG[case][0])
    package("good-package", {"good.py": plugin("fine")}, {"good": "good"})
    assert main(["algos", "fine"]) == 0
    out, err = capsys.readouterr()
    assert "good-package 1.0" in out
    assert err == "xpo: 1 plugin problem (bad-package 1.0): `xpo plugins` says what is missing and why\n"


@pytest.mark.parametrize("case", WRONG)
def test_strict_ends_every_command(
    package: MakePackage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    make(package, WRONG[case][0])
    monkeypatch.setenv("XPO_STRICT_PLUGINS", "1")
    assert main(["algos"]) == 2
    assert WRONG[case][2] in capsys.readouterr().err


def test_a_name_of_the_zoo_stays_the_zoos(package: MakePackage, capsys: pytest.CaptureFixture[str]) -> None:
    make(package, plugin("dpo"))
    assert main(["algos", "dpo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["supplier"].startswith("xpo ")
    assert main(["algos", "bad-package:dpo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["supplier"] == "bad-package 1.0"
    assert main(["plugins"]) == 0
    assert "algorithm bad-package:dpo" in capsys.readouterr().out


def test_a_command_of_xpo_stays_its_own(package: MakePackage, capsys: pytest.CaptureFixture[str]) -> None:
    make(package, HEAD + hook("{'algos': Command('x', lambda args: 7)}", "xpo_commands"))
    assert main(["algos", "dpo"]) == 0
    assert main(["bad-package:algos"]) == 7


@pytest.mark.parametrize("asked", ["xpo>=99", "xpo (>=99)", "XPO >=99 ; python_version > '3'", "xpo[test]>=99,<100"])
def test_a_package_for_another_xpo_is_not_imported(
    package: MakePackage, capsys: pytest.CaptureFixture[str], asked: str
) -> None:
    make(package, "raise AssertionError('it was imported')\n" + plugin("wanted"), asked)
    assert main(["train", "--algo", "wanted", "--output_dir", "never"]) == 2
    message = capsys.readouterr().err
    assert "bad-package 1.0 (entry point 'wanted'), requirements: it needs xpo" in message
    assert ">=99" in message
    assert f"and this is xpo {xpo.__version__}; install another version of one of the two" in message
    assert "it was imported" not in message


@pytest.mark.parametrize(
    "asked",
    [
        f"xpo>={xpo.__version__}",
        "xpo",
        "xpo-extras>=99",
        "xpo.other>=99",
        "xpose>=99",
        "torch>=99",
        "xpo>=99; extra == 'new'",
        "xpo>=99; python_version < '3'",
        "not a requirement at all",
    ],
)
def test_what_a_package_asks_of_others_is_pips_business(package: MakePackage, asked: str) -> None:
    make(package, plugin("wanted"), asked)
    assert load().algorithm("wanted").supplier.distribution == "bad-package"
    assert not load().failures


def test_a_requirement_that_cannot_be_read_is_a_reason(package: MakePackage) -> None:
    make(package, plugin("wanted"), "xpo=>1")
    [failure] = load().failures
    assert failure.kind == "requirements"
    assert failure.reason.startswith("what it needs, 'xpo=>1', cannot be read; correct the dependencies")


#: What a reward returns -> what the message says of it.
RETURNS = {
    "[1 / 0 for _ in prompts]": "reward 'made' raised ZeroDivisionError",
    "[0.0]": "reward 'made' returned 1 numbers for",
    "[float('nan') for _ in prompts]": "reward 'made' returned nan for completion 0; rewards must be finite",
    "[None for _ in prompts]": "no reward function scored",
    "None": "reward 'made' must return a list of numbers",
}


@pytest.mark.parametrize("returns", RETURNS)
def test_a_reward_that_fails_is_named(
    package: MakePackage,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    returns: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    reward = f"\ndef scores(prompts, completions, **columns):\n    return {returns}\n"
    make(package, HEAD + reward + hook("{'made': scores}", "xpo_rewards"))
    rows = "".join(json.dumps({"prompt": word, "completions": ["a", "b"]}) + "\n" for word in ("x", "y"))
    Path("rows.jsonl").write_text(rows)
    assert main(["label", "--dataset", "rows.jsonl", "--reward", "made", "--to", "lists", "--output", "out.jsonl"]) == 2
    assert RETURNS[returns] in capsys.readouterr().err


def test_a_loss_that_raises_is_a_traceback_and_a_wrong_shape_a_message(
    package: MakePackage, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one is code, whose author wants the line; the other breaks a rule of xpo's."""
    monkeypatch.chdir(tmp_path)
    raises = "    def loss(self, batch, policy, reference):\n        return {}['key']"
    shape = "    def loss(self, batch, policy, reference):\n        return Loss([Term(policy.sum().mean(), 'pair')])"
    source = HEAD + algorithm("raises", body=raises) + algorithm("shape", cls="Other", body=shape)
    make(package, source + hook("[Made, Other]"))
    Path("rows.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
    short = [
        "--dataset",
        "rows.jsonl",
        "--max_steps",
        "1",
        "--eval_prompts",
        "0",
        "--sample_completions",
        "0",
        "--output_dir",
        "out",
    ]
    with pytest.raises(KeyError, match="key"):
        main(["train", "--algo", "raises", *short, "--output_dir", "first"])
    assert main(["train", "--algo", "shape", *short, "--output_dir", "second"]) == 2
    assert "term 'preference' of level 'pair' has shape (), the batch asks for (1,)" in capsys.readouterr().err
