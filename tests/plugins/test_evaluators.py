"""What an evaluator and its columns must be, before a table is made of them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from xpo import Column, Evaluator
from xpo.plugins.evaluators import columns_problem, evaluator_problem

GOOD = Column("a_1-b", "a title")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ([], "its columns are []"),
        ("ab", "its column 'a' is not an xpo.Column"),
        ({GOOD}, "they must be a list of xpo.Column"),
        ([GOOD, "b"], "its column 'b' is not an xpo.Column"),
        ([Column("A", "a")], "the key of its column 'A' must be lower case letters"),
        ([Column(3, "a")], "the key of its column 3"),  # type: ignore[arg-type]  # the mistake, or a stand-in
        ([Column("a", " ")], "the title of its column 'a' is ' '; it must be one line of text"),
        ([Column("a", "a\nb")], "the title of its column 'a' is 'a\\nb'"),
        ([Column("a", "a", note="b\nc")], "the note of its column 'a'"),
        ([Column("a", "a", "more")], "its column 'a' is better 'more'; it must be 'up', 'down' or None"),  # type: ignore[arg-type]  # the mistake, or a stand-in
        ([Column("a", "a", share="yes")], "share of its column 'a' is 'yes'"),  # type: ignore[arg-type]  # the mistake, or a stand-in
        ([Column("a", "a", digits=-1)], "digits of its column 'a' are -1"),
        ([Column("a", "a", digits=True)], "digits of its column 'a' are True"),
        ([GOOD, GOOD], "two of its columns have the key 'a_1-b'; rename one"),
    ],
)
def test_a_column_that_no_table_could_have_is_refused(columns: Any, reason: str) -> None:
    assert reason in str(columns_problem(columns))
    assert evaluator_problem(Evaluator(columns, len)) == columns_problem(columns)  # type: ignore[arg-type]  # the mistake, or a stand-in


def test_what_can_be_used_is_no_problem() -> None:
    assert columns_problem([GOOD, Column("c", "c", "down", True, 0, "a note")]) is None
    assert evaluator_problem(Evaluator((GOOD,), len)) is None  # type: ignore[arg-type]  # the mistake, or a stand-in
    assert evaluator_problem(Evaluator(lambda argument: [], len)) is None  # type: ignore[arg-type]  # asked later
    assert "measure is 3" in str(evaluator_problem(Evaluator([GOOD], 3)))  # type: ignore[arg-type]  # the mistake, or a stand-in


def test_the_words_of_evaluators_are_light() -> None:
    code = "import sys; from xpo import Evaluator, Examined; import xpo.bench.harness; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
