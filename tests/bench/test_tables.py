"""From constructed records to what is shown: the choice of settings, marks, and tables letter by letter."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from xpo.bench.choice import tried
from xpo.bench.failure import failure, last_error, shown
from xpo.bench.summary import summarise
from xpo.bench.table import comma_separated, latex, markdown
from xpo.train.statistics import paired_p

MACHINE = {"xpo_version": "1.0", "versions": {"torch": "2.0"}, "device": {"name": "a CPU", "kind": "cpu"}}


def split(wins: Sequence[float], rewards: Sequence[float] | None = None) -> dict[str, Any]:
    return {
        "wins": list(wins),
        "rewards": list(wins if rewards is None else rewards),
        "lengths": [4] * len(wins),
        "kl": [0.5] * len(wins),
        "agreed": [1.0, 0.0] * (len(wins) // 2),
        "finished": [True] * len(wins),
    }


def cell(method: str, seed: int, test: Any, validation: Any = None, setting: str = "", **more: Any) -> dict[str, Any]:
    examined = {"test": test} if validation is None else {"test": test, "validation": validation}
    return {
        "method": method,
        "algo": method,
        "seed": seed,
        "setting": setting,
        "status": "done",
        "steps": 3,
        "tokens": 1200,
        "trainable": 1000,
        "examined": examined,
        "cost": {
            "seconds": 2.0 + seed,
            "tokens_per_second": 600.0,
            "peak_memory_bytes": 5 * 2**20,
            "peak_gpu_memory_bytes": None,
        },
        **MACHINE,
        **more,
    }


def failed(method: str, seed: int, why: str, setting: str = "") -> dict[str, Any]:
    body = {"reason": why, "status": 1, "signal": None, "out_of_memory": False}
    return {"method": method, "algo": method, "seed": seed, "setting": setting, "status": "failed", "failed": body}


def records(cells: Sequence[Mapping[str, Any]], validation: bool = False, **more: Any) -> dict[str, Any]:
    prompts = next(len(one["examined"]["test"]["lengths"]) for one in cells if one["status"] == "done")
    return {
        "methods": {name: name for name in dict.fromkeys(one["method"] for one in cells)},
        "seeds": sorted({one["seed"] for one in cells}),
        "shared": {
            "model_name_or_path": None,
            "dataset_name": None,
            "examined_by": {"reward": ["testbed"], "judge": None},
            "budget_tokens": None,
            "validation": validation,
        },
        "notes": [],
        "start": {"examined": {"test": {"rewards": [0.0] * prompts, "lengths": [4] * prompts}}, **MACHINE},
        "cells": list(cells),
        **more,
    }


GOOD, FAIR, POOR = [1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]


def test_the_setting_is_chosen_on_validation_prompts_and_reported_on_test_prompts() -> None:
    cells = [
        *(cell("dpo", seed, split(GOOD), split(POOR), "beta=0.1") for seed in (0, 1)),  # best where nobody may look
        *(cell("dpo", seed, split(POOR), split(GOOD), "beta=0.5") for seed in (0, 1)),
    ]
    made = records(cells, validation=True)
    assert [(one.setting, one.chosen) for one in tried(made, "dpo")] == [("beta=0.1", False), ("beta=0.5", True)]
    [_, line] = summarise(made).lines
    assert line.setting == "beta=0.5"
    assert line.numbers["win_rate"].value == 0.0
    assert line.seeds == 2
    scores = [one.score.value for one in tried(made, "dpo") if one.score]
    assert scores == [0.0, 0.75]


def test_the_choice_is_by_the_mean_over_seeds_and_the_first_of_equals() -> None:
    cells = [
        *(cell("dpo", seed, split(FAIR), split(one), "a") for seed, one in enumerate((GOOD, POOR))),  # 0.375
        *(cell("dpo", seed, split(FAIR), split(one), "b") for seed, one in enumerate((FAIR, FAIR))),  # 0.5
        *(cell("dpo", seed, split(FAIR), split(one), "c") for seed, one in enumerate((FAIR, FAIR))),
    ]
    assert [one.setting for one in tried(records(cells, True), "dpo") if one.chosen] == ["b"]


def test_a_setting_that_failed_in_part_is_passed_over_while_another_is_whole() -> None:
    half = [cell("dpo", 0, split(GOOD), split(GOOD), "a"), failed("dpo", 1, "no", "a")]
    whole = [cell("dpo", seed, split(FAIR), split(FAIR), "b") for seed in (0, 1)]
    assert [one.setting for one in tried(records([*half, *whole], True), "dpo") if one.chosen] == ["b"]
    gone = [failed("dpo", seed, "no", "b") for seed in (0, 1)]
    assert [one.setting for one in tried(records([*half, *gone], True), "dpo") if one.chosen] == ["a"]
    assert summarise(records([*half, *gone], True)).lines[-1].seeds == 1


def test_what_cannot_be_told_from_the_best_is_marked_and_what_is_worse_is_not() -> None:
    best = [1.0 + 0.1 * (number % 3) for number in range(20)]
    near = [value + 0.3 * (-1) ** number - 0.001 for number, value in enumerate(best)]
    far = [value - 0.5 + 0.01 * (number % 2) for number, value in enumerate(best)]
    wins = [1.0, 0.0] * 10
    rows = {"a": best, "b": near, "c": far}
    made = records([cell(name, seed, split(wins, some)) for name, some in rows.items() for seed in (0, 1)])
    marks = {line.method: line.numbers["mean_reward"].mark for line in summarise(made).lines}
    assert marks == {"start": "", "a": "best", "b": "equal", "c": ""}
    ties = {line.method: line.numbers["win_rate"].mark for line in summarise(made).lines}
    assert set(ties.values()) == {"", "best"}  # all the same, and all the best
    assert all(line.numbers["kl"].mark == "" for line in summarise(made).lines)


def test_tests_compare_the_same_seeds() -> None:
    wins = [1.0, 0.0] * 4
    rows = {("a", 0): [0.0] * 8, ("a", 1): [5.0] * 8, ("b", 1): [4.0, 4.1] * 4}
    made = records([cell(name, seed, split(wins, some)) for (name, seed), some in rows.items()])
    marks = {line.method: line.numbers["mean_reward"].mark for line in summarise(made).lines}
    assert marks["b"] == "best"  # 4.05 against a mean of 2.5
    assert marks["a"] == ""  # in seed 1, which both have, they differ on every prompt


def test_a_finding_that_fails_correction_is_no_finding() -> None:
    base, wins = [0.0] * 10, [1.0, 0.0] * 5
    worse = [-1.0, 0.2, -0.9, 0.1, -0.8, 0.1, -0.2, -0.7, 0.1, -0.4]
    assert 0.05 / 4 < paired_p([worse], [base]) < 0.05
    two = records([cell("a", 0, split(wins, base)), cell("b", 0, split(wins, worse))])
    many = records(
        [cell("a", 0, split(wins, base)), *(cell(name, 0, split(wins, worse)) for name in ("b", "c", "d", "e"))]
    )
    marks = [
        {line.method: line.numbers["mean_reward"].mark for line in summarise(one).lines}["b"] for one in (two, many)
    ]
    assert marks == ["", "equal"]


GOLDEN = records(
    [
        cell("dpo", 0, split(GOOD)),
        cell("dpo", 1, split(GOOD)),
        cell("kto", 0, split(FAIR)),
        failed("kto", 1, "ValueError: 100% of a_b | c"),
        failed("orpo", 0, "no"),
        failed("orpo", 1, "no"),
    ]
)

# By hand, for [1, 1, 1, 0]: s² / n = 1/16 is worth 3 trials, t(3) = 3.1824; Wilson gives 0.557 -/+ 0.426.
MARKDOWN = """\
# Methods compared

Model: testbed. Data: testbed. 4 test prompts, judged by testbed; seeds 0, 1. xpo 1.0, torch 2.0, a CPU.

| method | seeds | win rate, % ↑ | win rate at equal length, % ↑ | mean reward ↑ | preference accuracy, % ↑\
 | KL, nats | tokens |
|---|---|---|---|---|---|---|---|
| start |  | 50.0 | 50.0 | 0.00 [0.00, 0.00] | 50.0 | 0.00 | 4.0 [4.0, 4.0] |
| dpo | 2/2 | **75.0 [13.1, 98.4]** | **75.0 [13.1, 98.4]** | **0.75 [-0.05, 1.55]** | **50.0 [6.1, 93.9]**\
 | 0.50 [0.50, 0.50] | 4.0 [4.0, 4.0] |
| kto | 1/2 | 50.0 [6.1, 93.9] ≈ | 50.0 [6.1, 93.9] ≈ | 0.50 [-0.42, 1.42] ≈ | **50.0 [6.1, 93.9]**\
 | 0.50 [0.50, 0.50] | 4.0 [4.0, 4.0] |
| orpo | 0/2 | failed | failed | failed | failed | failed | failed |
"""


def test_markdown_letter_by_letter() -> None:
    text = markdown(summarise(GOLDEN), GOLDEN)
    assert text.startswith(MARKDOWN)
    assert "| kto | 3 | 1,200 | 1,000 | 600 | 2.0 | 5 |" in text
    assert "| dpo | 3 | 1,200 | 1,000 | 600 | 2.5 | 5 |" in text
    assert "* kto, seed 1: ValueError: 100% of a_b | c (exit status 1)\n" in text
    assert text.count("no (exit status 1)") == 2
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.replace("\\|", "").count("|") for row in rows} == {9, 8}


def test_latex_letter_by_letter() -> None:
    text = latex(summarise(GOLDEN), GOLDEN)
    assert "\\begin{tabular}{lrrrrrrr}\n\\toprule\nmethod & seeds & win rate, \\% $\\uparrow$ & " in text
    assert "\\midrule\nstart &  & 50.0 & 50.0 & 0.00 [0.00, 0.00] & 50.0 & 0.00 & 4.0 [4.0, 4.0] \\\\\n" in text
    assert "dpo & 2/2 & \\textbf{75.0 [13.1, 98.4]} & " in text
    assert "kto & 1/2 & 50.0 [6.1, 93.9] $\\approx$ & " in text
    assert "Failed: kto, seed 1: ValueError: 100\\% of a\\_b $|$ c (exit status 1)." in text
    assert "orpo & 0/2 & failed" in text


#: All that means something to LaTeX, Markdown, HTML or CSV.
HOSTILE = '[a|b] _%&#$ {~^} \\x "q", <script>alert(1)</script> --grid ≈ ü 漢'


def test_names_and_reasons_stay_what_they_are_in_every_file() -> None:
    made = records([cell(HOSTILE, 0, split(GOOD)), failed(HOSTILE, 1, HOSTILE), cell("b", 0, split(FAIR))])
    summary = summarise(made)
    rows = list(csv.DictReader(io.StringIO(comma_separated(summary))))
    assert [row["method"] for row in rows][1:] == [HOSTILE, "b"]
    assert rows[1]["failures"] == f"{HOSTILE}, seed 1: {HOSTILE} (exit status 1)"

    text = markdown(summary, made)
    assert "<" not in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {9, 8}

    text = latex(summary, made)
    name = (
        '{[}a$|$b] \\_\\%\\&\\#\\$ \\{\\textasciitilde{}\\textasciicircum{}\\} \\textbackslash{}x "q", '
        "$<$script$>$alert(1)$<$/script$>$ -{}-grid $\\approx$ ü 漢"
    )
    assert f"\n{name} & 1/2 & " in text
    assert text.count(name.removeprefix("{[}")) == 4  # in both tables, and twice in the line of the failure
    assert [line for line in text.splitlines() if re.match(r"\s*[\[*]", line)] == []  # an argument of the \\\\ before


def test_a_zero_has_no_sign() -> None:
    made = records([cell("a", 0, {**split(GOOD), "kl": [-0.001, -0.002, -0.003, 0.001]})])
    assert "-0.00" not in markdown(summarise(made), made)


def test_files_hold_the_same_numbers_with_more_digits_and_times_last() -> None:
    summary = summarise(GOLDEN)
    found = list(csv.DictReader(comma_separated(summary).splitlines()))
    assert [row["method"] for row in found] == ["start", "dpo", "kto", "orpo"]
    dpo, kto, orpo = found[1:]
    assert (dpo["win_rate"], dpo["win_rate_mark"], kto["win_rate_mark"]) == ("0.75", "best", "equal")
    assert float(dpo["win_rate_low"]) == pytest.approx(0.1307, abs=5e-4)
    assert (kto["seeds_done"], kto["seeds"], kto["state"]) == ("1", "2", "part")
    assert kto["failures"] == "kto, seed 1: ValueError: 100% of a_b | c (exit status 1)"
    assert (orpo["state"], orpo["win_rate"], orpo["failures"].count("no")) == ("failed", "", 2)
    assert list(found[0])[-3:] == ["tokens_per_second", "seconds", "peak_memory_mib"]
    body = json.loads(json.dumps(summary.to_dict(), allow_nan=False))
    assert body["lines"][1]["numbers"]["win_rate"]["value"] == 0.75


def test_only_the_table_of_costs_knows_of_times() -> None:
    slower = [
        {**one, **({"cost": {**one["cost"], "seconds": 99.0}} if "cost" in one else {})} for one in GOLDEN["cells"]
    ]
    texts = [markdown(summarise(one), one) for one in (GOLDEN, {**GOLDEN, "cells": slower})]
    assert texts[0] != texts[1]
    assert len({text.partition("## What training took")[0] for text in texts}) == 1


def test_where_nothing_is_finished_the_table_says_why() -> None:
    made = records([cell("done", 0, split(GOOD)), failed("a", 0, "no"), {**failed("b", 0, ""), "status": "missing"}])
    made["cells"] = made["cells"][1:]
    del made["methods"]["done"]
    text = markdown(summarise(made), made)
    assert (
        "| method | seeds | state |\n|---|---|---|\n| start |  |  |\n| a | 0/1 | failed |\n| b | 0/1 | missing |"
        in text
    )
    assert "a & 0/1 & failed \\\\" in latex(summarise(made), made)


def test_without_a_judge_methods_are_ordered_by_what_they_prefer() -> None:
    def bare(agreed: list[float]) -> dict[str, Any]:
        return {"rewards": [], "lengths": [4] * 4, "kl": [0.1] * 4, "agreed": agreed, "finished": [True] * 4}

    made = records([cell("a", 0, bare([0.0] * 4)), cell("b", 0, bare([1.0, 1.0, 1.0, 0.0]))])
    summary = summarise(made)
    assert [line.method for line in summary.lines] == ["start", "b", "a"]
    assert [column.key for column in summary.columns] == ["preference_accuracy", "kl", "mean_length"]
    assert any("nobody says what samples are worth" in note for note in summary.notes)


def test_notes_say_what_a_reader_should_know() -> None:
    cells = [cell("a", 0, {**split(GOOD), "unjudged": 2}, tokens=50), cell("b", 0, split(FAIR), tokens=900)]
    cells[1]["device"] = {"name": "another", "kind": "cpu"}
    made = records(cells)
    made["shared"]["budget_tokens"] = 800
    notes = " ".join(summarise(made).notes)
    assert "no verdict on 2 samples" in notes
    assert "budget of 800 tokens, by --max_steps: a, seed 0" in notes
    assert "several devices: a CPU, another" in notes
    assert "one seed" in notes


@pytest.mark.parametrize(
    ("text", "status", "reason", "memory"),
    [
        ("step 1\nTraceback:\n  File\nValueError: bad\n", 1, "ValueError: bad (exit status 1)", False),
        ("xpo: the data is gone\nwarning: x\n", 2, "the data is gone (exit status 2)", False),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried\n", 1, "torch.OutOfMemoryError: CUDA out of memory.", True),
        ("MemoryError\n", 1, "MemoryError (exit status 1)", True),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory: x\n", 1, "DefaultCPUAllocator", True),
        ("step 7\n", -9, "out of memory: ended by SIGKILL: probably out of memory|ended by SIGKILL", True),
        ("step 7\n", -11, "ended by SIGSEGV; its log ends with: step 7", False),
        ("OSError: x\nstep 7\n", -11, "ended by SIGSEGV; last error: OSError: x", False),
        ("step 7\n", 3, "no error in its log, which ends with: step 7 (exit status 3)", False),
        ("", 1, "its log is empty (exit status 1)", False),
        ("step 7\n", 0, "it ended without a result", False),
        ("\x1b[1;31mBadError\x1b[0m: a\x07b\u202ec\x00\n", 1, "BadError: a b c (exit status 1)", False),
    ],
)
def test_failures_are_named(text: str, status: int, reason: str, memory: bool, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(text)
    found = failure(log, status)
    assert any(one in shown(found) for one in reason.split("|"))
    assert found["out_of_memory"] is memory
    assert found["signal"] == {-9: "SIGKILL", -11: "SIGSEGV"}.get(status)


def test_logs_may_be_long_or_missing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"OldError: x\n" + b"\xff" * 70000 + b"\nNewError: " + b"y" * 1000 + b"\n")
    assert last_error(log) == "NewError: " + "y" * 390
    assert last_error(tmp_path / "none") == ""
