"""The conformance kit: sound methods pass, and each check finds what it is there for."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from tests.conftest import ROOT
from tests.testing.broken import BROKEN, sub
from tests.testing.toys import SOUND, Keeping, Sampling, Sound
from xpo import Algorithm, Config, PluginError, option
from xpo.testing import Report, check_algorithm
from xpo.testing.alternatives import alternatives
from xpo.testing.check import CHECKS, FIRST, VECTORS, outcome
from xpo.testing.subject import Subject
from xpo.testing.vectors import read_cases
from xpo.testing.vectors import vectors as against


@pytest.mark.parametrize("cls", SOUND, ids=lambda cls: cls.name)
def test_a_sound_method_passes(cls: type[Algorithm[Any]]) -> None:
    report = check_algorithm(cls)
    report.require()
    assert report.ok
    assert [check.name for check in report.checks] == [*CHECKS, "vectors"]
    verdicts = {check.name: check.verdict for check in report.checks}
    assert verdicts["settings"] == ("n/a" if cls.Config is Config else "pass")
    assert all(verdicts[name] == "pass" for name in ("finite loss", "padding", "batch split", "layout", "extremes"))


def test_every_check_has_something_that_it_finds() -> None:
    assert BROKEN.keys() == CHECKS.keys()


@pytest.mark.parametrize(
    ("check", "case"), [(check, case) for check, cases in BROKEN.items() for case in cases], ids=str
)
def test_what_is_broken_is_found(check: str, case: str) -> None:
    first = FIRST[: FIRST.index(check)] if check in FIRST else FIRST
    subject = Subject(BROKEN[check][case])
    assert [outcome(name, CHECKS[name], subject).verdict != "fail" for name in first] == [True] * len(first)
    found = outcome(check, CHECKS[check], subject)
    assert found.verdict == "fail"
    assert found.reason.strip()
    assert "\n" not in found.reason


def test_messages_say_what_to_do() -> None:
    def reason(check: str, case: str) -> str:
        return outcome(check, CHECKS[check], Subject(BROKEN[check][case])).reason

    assert "set needs = Needs(reference=True)" in reason("needs", "reference not declared")
    assert "the setting 'label_smoothing' changes nothing (tried" in reason("settings", "ignored")
    assert "ZeroDivisionError: division by zero (broken.py, line" in reason("finite loss", "raises")
    assert "gradient descent makes a completion 'chosen' less likely" in reason("direction", "wrong sign")
    assert "explain it in `metrics`" in reason("metrics", "undocumented")


def test_nothing_is_looked_at_after_a_loss_that_fails() -> None:
    report = check_algorithm(BROKEN["finite loss"]["raises"])
    assert [one.name for one in report.crosses] == ["finite loss"]
    assert all(one.verdict == "n/a" for one in report.checks[4:])


def test_a_statistic_of_the_micro_batch_is_declared_and_no_fault() -> None:
    remark = next(one.reason for one in check_algorithm(Keeping).checks if one.name == "batch split")
    assert "its statistic is that of the micro-batch, as Needs(least=2) declares" in remark


def test_the_page_explains_every_check() -> None:
    page = (ROOT / "docs" / "check.md").read_text("utf-8")
    page = page.partition("## What the checks mean")[2].partition("\n## ")[0]
    explained = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert explained == ["check", *CHECKS, VECTORS]


class Level(Enum):
    LOW = 1
    HIGH = 2


@dataclass
class Various(Config):
    flag: bool = option(True, "x")
    count: int = option(2, "x")
    rate: float | None = option(None, "x")
    choice: str = option("one", "x")
    named: str = option("free", "text such as 'this' or 'that'")
    kind: Literal["a", "b", "c"] = option("a", "x")
    level: Level = option(Level.LOW, "x")  # noqa: RUF009 - a field, as of the others
    bounds: tuple[float, float] | None = option((0.0, 4.0), "x")

    def __post_init__(self) -> None:
        self.require(
            self.choice in ("one", "two", "three"), f"choice must be one of one, two, three, not {self.choice}"
        )
        self.require(self.count > 0, "count must be positive")


def test_other_values_of_a_setting_are_legal_and_ordinary() -> None:
    found = {name: list(alternatives(Various, name)) for name in Various.__dataclass_fields__}
    assert found["flag"] == [False]
    assert found["count"] == [3, 1, 4, 5, 10]
    assert found["rate"][:3] == [0.0, 0.1, 0.25]
    assert found["choice"] == ["two", "three"]
    assert found["named"] == ["this", "that", "?"]
    assert found["kind"] == ["b", "c"]
    assert found["level"] == [Level.HIGH]
    assert found["bounds"] == [(0.0, 8.0), (0.0, 2.0), (-0.5, 0.5), (0.25, 0.75), (0.0, 0.1), None]
    assert list(alternatives(Various, "count", {"count": 3})) == [4, 2, 6, 1, 5, 10]


def test_a_report_as_an_assertion() -> None:
    report: Report = check_algorithm(BROKEN["value at reference"]["wrong"])
    assert not report.ok
    with pytest.raises(AssertionError, match=r"'sound' fails 1 of 26 checks:\n  value at reference: .* says 1, but"):
        report.require()
    assert report.as_json()["ok"] is False
    json.dumps(report.as_json())


CASE: dict[str, Any] = {
    "id": "one",
    "loss": "sound",
    "kind": "loss",
    "hyper": {"beta": 1.0},
    "policy": {"chosen": [[-1.0, -1.0]], "rejected": [[-2.0]]},
    "data": {"ref_chosen": [[-1.0, -1.0]], "ref_rejected": [[-2.0]]},
    "expected": {
        "loss": 0.6931471805599453,
        "grad": {"chosen": [[-0.5, -0.5]], "rejected": [[0.5]]},
        "metrics": {"margin": 0.0},
    },
}
Claiming = sub(Sound, golden={"sound": {}}, functions={"double": lambda x: {"y": 2 * x}})


def vectors(*cases: Mapping[str, Any]) -> tuple[str, str]:
    found = outcome(VECTORS, lambda subject: against(subject, cases), Subject(Claiming))
    return found.verdict, found.reason


def test_vectors() -> None:
    function = {"loss": "double", "kind": "function", "data": {"x": 2.0}, "expected": {"outputs": {"y": 4.0}}}
    assert vectors(CASE, function, {"loss": "another", "expected": {}}) == ("pass", "2 cases")
    assert vectors({"loss": "another", "expected": {}})[0] == "n/a"
    other = {**CASE, "expected": {**CASE["expected"], "loss": 0.7}}
    assert vectors(other) == ("fail", "one in float64: the loss is 0.69314718056, expected 0.7")
    other = {**CASE, "expected": {**CASE["expected"], "grad": {"chosen": [[-0.5, -0.4]], "rejected": [[0.5]]}}}
    assert "the gradient of chosen is not as expected" in vectors(other)[1]
    other = {**CASE, "expected": {**CASE["expected"], "metrics": {"margin": 1.0}}}
    assert "the metric margin is 0, expected 1" in vectors(other)[1]
    assert "y is 4.0, expected 5.0" in vectors({**function, "expected": {"outputs": {"y": 5.0}}})[1]


def test_vectors_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "cases.json"
    for content in ({"cases": [CASE]}, [CASE]):
        path.write_text(json.dumps(content))
        assert read_cases(path) == [CASE]
    assert check_algorithm(Claiming, path).checks[-1].verdict == "pass"
    for content in ({"case": 1}, [1], 3):
        path.write_text(json.dumps(content))
        with pytest.raises(PluginError, match="holds no test vectors"):
            read_cases(path)
    with pytest.raises(PluginError, match="cannot be read"):
        check_algorithm(Claiming, tmp_path / "nothing.json")


def test_the_process_is_left_as_it_was() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    number = random.getstate()
    check_algorithm(Sampling)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == number
