"""The README does what it says: its tables are current, and its commands and examples run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.docs import generate
from tests.conftest import ROOT, MakePackage

README = (ROOT / "README.md").read_text(encoding="utf-8")
#: Pages whose commands are run too.
PAGES = ("docs/online.md",)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
UNTESTED = re.compile(r"# not run in tests: \S+")
INSTALL = re.compile(r"pip install -c constraints\.txt (\.|-e '\.\[test\]')")


def blocks(language: str) -> list[str]:
    return [body for found, body in FENCE.findall(README) if found == language]


def commands() -> Iterator[str]:
    """Every command line of the bash blocks that is to be run, without line continuations."""
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    for body in [*blocks("bash"), *(body for found, body in FENCE.findall(pages) if found == "bash")]:
        if not UNTESTED.match(body):
            yield from (line for line in body.replace("\\\n", " ").splitlines() if line.strip())


def steps(command: str) -> list[str]:
    return [step.strip() for step in command.split("&&")]


def xpo_steps() -> list[str]:
    """The command lines that run xpo; what is joined with && runs in one folder."""
    ours = [" && ".join(step for step in steps(command) if step.startswith("xpo ")) for command in commands()]
    return [command for command in ours if command]


def run(words: list[str], folder: Path) -> str:
    """Run a program as a reader would, in an empty folder; its output."""
    # The scripts of the environment the tests run in, whether it is activated or not.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(words, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_generated_blocks_are_current() -> None:
    assert generate(README) == README, "run `make docs`"


def test_a_generated_block_is_replaced_and_nothing_else() -> None:
    text = "before\n<!-- generated: x -->\nold\n<!-- end -->\nafter\n"
    assert generate(text, {"x": lambda: "new\n"}) == text.replace("old", "new")
    with pytest.raises(SystemExit, match="no generator for the block 'x'"):
        generate(text, {})


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_is_one_that_tests_understand(command: str) -> None:
    """Installing is not repeated here: .ci/run does it in a fresh environment, with the line that stands here."""
    for step in steps(command):
        assert INSTALL.fullmatch(step) or step.startswith("xpo ") or step.split()[0] == "pytest", (
            f"{step}: run it or say why not"
        )


def test_the_test_command_is_where_ci_looks_for_it() -> None:
    assert "pip install -c constraints.txt -e '.[test]' && pytest -n auto --dist loadfile" in commands()


@pytest.mark.parametrize("command", xpo_steps())
def test_the_commands_run(command: str, tmp_path: Path) -> None:
    for step in steps(command):
        assert run(shlex.split(step), tmp_path)


def test_the_python_example_runs(tmp_path: Path) -> None:
    script = next(body for body in blocks("python") if "xpo.train(" in body)
    (tmp_path / "example.py").write_text(script)
    assert run([sys.executable, "example.py"], tmp_path)


def test_the_plugin_of_the_tutorial_can_be_installed_and_trained(package: MakePackage, tmp_path: Path) -> None:
    source = next(body for body in blocks("python") if "def xpo_algorithms" in body)
    points = tomllib.loads(blocks("toml")[0])["project"]["entry-points"]["xpo"]
    [module] = points.values()
    assert source.startswith(f"# {module}.py\n")
    package("tutorial", {f"{module}.py": source}, points)
    name = re.search(r'^    name = "(.*)"$', source, re.MULTILINE)
    assert name is not None
    assert f"xpo train --algo {name[1]}" in README
    assert "tutorial 1.0" in run(["xpo", "algos", name[1]], tmp_path)
    short = ["--max_steps", "2", "--eval_prompts", "0", "--sample_completions", "0", "--output_dir", "out"]
    run(["xpo", "train", "--algo", name[1], *short], tmp_path)


def test_links_to_files_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?://|#)([^)#]+)", README):
        assert (ROOT / link).exists(), link
