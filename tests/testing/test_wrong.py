"""Plausible mistakes in methods of strangers, which promise nothing: each is found, and the message names it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.testing.mistakes import REMARKED, WRONG
from xpo.cli import main
from xpo.scaffold.names import Names
from xpo.scaffold.package import render
from xpo.testing import check_algorithm
from xpo.testing.check import CHECKS, FIRST, outcome
from xpo.testing.subject import Subject


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_found_and_named(mistake: str) -> None:
    cls, check, words = WRONG[mistake]
    subject = Subject(cls)
    for name in FIRST[: FIRST.index(check)] if check in FIRST else FIRST:
        assert outcome(name, CHECKS[name], subject).verdict != "fail"
    found = outcome(check, CHECKS[check], subject)
    assert found.verdict == "fail"
    assert words in found.reason
    assert "\n" not in found.reason


@pytest.mark.parametrize("case", REMARKED)
def test_what_may_be_meant_is_named_and_passes(case: str) -> None:
    cls, check, words = REMARKED[case]
    found = outcome(check, CHECKS[check], Subject(cls))
    assert found.verdict == "pass"
    assert words in found.reason


ONE_FAULT = (
    "pairs: sign",
    "pairs: feedback ignored",
    "rollouts: sign",
    "reference: added",
    "an average for a sum",
    "divided by the pairs",
    "lists: ties",
)


@pytest.mark.parametrize("mistake", ONE_FAULT)
def test_one_mistake_is_one_cross(mistake: str) -> None:
    cls, check, _ = WRONG[mistake]
    assert [one.name for one in check_algorithm(cls).crosses] == [check]


#: A line of the file that `xpo new` writes for pairs -> the same with a mistake, the check, and what it says.
MISREAD = {
    "sign": ("return -logsigmoid(", "return logsigmoid(", "feedback", "its sign is flipped"),
    "reference": ("policy.sum() - reference.sum()", "policy.sum()", "needs", "the reference is declared but changes"),
    "mean for sum": (
        "policy.sum() - reference.sum()",
        "policy.mean() - reference.mean()",
        "sum or average",
        "averages log-probabilities over the tokens of a completion, but the equation has their sum",
    ),
    "micro-batch": ("Term(losses, ", "Term(losses / len(losses), ", "batch split", "normalised by the micro-batch"),
}


@pytest.mark.parametrize("mistake", MISREAD)
def test_the_command_names_a_mistake_in_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    right, mistaken, check, words = MISREAD[mistake]
    source = render(Names.of("of_mine"), "pairs")["of_mine.py"]
    assert right in source
    path = tmp_path / f"{check.replace(' ', '_')}_of_mine.py"
    path.write_text(source.replace(right, mistaken))
    assert main(["check", f"{path}:OfMine", "--json"]) == 1
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["checks"]}
    assert found[check]["verdict"] == "fail"
    assert words in found[check]["reason"]


def test_a_file_that_ends_the_process_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "script_of_mine.py"
    path.write_text("import sys\nsys.exit(0)\n")
    assert main(["check", f"{path}:OfMine"]) == 2
    assert "cannot be imported: SystemExit: 0" in capsys.readouterr().err
