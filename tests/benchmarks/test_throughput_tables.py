"""Numbers and tables of the throughput benchmark, from records of runs that never were."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks.records import Record, save
from benchmarks.throughput.cases import CASES
from benchmarks.throughput.flops import Amount, Shape, Work, policy_flops, reference_flops
from benchmarks.throughput.numbers import Summary, summaries
from benchmarks.throughput.record import RECORDS, place
from benchmarks.throughput.table import newest, tables
from xpo import SettingError


def a_record(cases: dict[str, list[dict[str, Any]]]) -> Record:
    """Two rows a step, four steps."""
    step = Work(2, 100, 150, Amount(80, 20, 1000), Amount())
    return {
        "benchmark": "throughput",
        "format": 1,
        "started": "2025-01-02T00:00:00+00:00",
        "finished": None,
        "machine": {"kind": "cpu", "name": "A machine", "threads": 2},
        "versions": {"torch": "9.9", "trl": "1.16.0"},
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "setup": {
            "dtype": "float32",
            "load_in_4bit": False,
            "checkpointing": False,
            "attn_implementation": None,
            "rank": 16,
        },
        "warmup": 1,
        "repeats": 2,
        "models": {"made": {"name": "random weights, tiny", "parameters": 41_700_000}},
        "data": {"chat": {"name": "pairs.jsonl", "rows": 9, "sha256_of_rows": "ab"}},
        "cases": [
            {
                "name": name,
                "title": CASES[name].title,
                "material": "chat",
                "model": "made",
                "dtype": "float32",
                "lora": True,
                "batch": 2,
                "reference": True,
                "shape": asdict(Shape(1000, 10, 300, 64, 2000, False)),
                "work": [asdict(step)] * 4,
                "runs": runs,
            }
            for name, runs in cases.items()
        ],
    }


def a_run(side: str, seconds: list[float], loss: float = 0.5, rate: float = 1e6, **more: Any) -> dict[str, Any]:
    ends = [sum(seconds[: number + 1]) for number in range(len(seconds))]
    return {
        "side": side,
        "ends": ends,
        "losses": [math.log(2), *[loss] * (len(seconds) - 1)],
        "tokens": 100,
        "tokens_expected": 100,
        "memory_before": 10**9,
        "memory_peak": 3 * 10**9,
        "device_peak": None,
        "matrix_rate": rate,
        "before_training": 1.5,
        **more,
    }


def summary(record: Record) -> dict[str, Summary]:
    return summaries(record, record["cases"][0])


def test_speeds_are_compared_on_the_steps_that_all_sides_took() -> None:
    record = a_record(
        {
            "dpo-chat": [
                a_run("trl", [9.0, 4.0, 6.0]),
                a_run("tree", [7.0, 1.0, 1.0, 99.0], loss=0.5 + 1e-5),
                a_run("tree", [7.0, 3.0, 3.0, 99.0], loss=0.5, rate=2e6),
            ]
        }
    )
    found = summary(record)
    assert list(found["trl"].steps) == [4.0, 6.0]
    assert list(found["tree"].steps) == [2.0, 2.0]  # the median of two repeats, without the step that warms up
    assert (found["tree"].fastest, found["tree"].slowest) == (1.0, 3.0)
    assert found["tree"].speed == {"trl": 2.5}
    assert found["tree"].difference["trl"] == pytest.approx(1e-5)
    assert found["tree"].rows == 4 / 4.0
    assert found["tree"].tokens == 200 / 4.0
    shape, step = Shape(1000, 10, 300, 64, 2000, False), Work(2, 100, 150, Amount(80, 20, 1000), Amount())
    # The best rate that any run saw serves all sides.
    needed = policy_flops(shape, step) + reference_flops(shape, step)
    assert found["tree"].share == pytest.approx(2 * needed / 4.0 / 2e6)
    assert found["trl"].share == pytest.approx(2 * needed / 10.0 / 2e6)


def test_a_warm_cache_has_less_to_compute() -> None:
    runs = [a_run(side, [1.0, 1.0, 1.0]) for side in ("tree", "cold", "warm")]
    found = summary(a_record({"dpo-chat": runs}))
    assert found["warm"].share < found["tree"].share  # type: ignore[operator]  # numbers, where all was measured
    assert found["cold"].share is None


def test_a_failed_side_stays_in_the_table_with_its_reason() -> None:
    failed = {"side": "trl", "failed": "ended by SIGKILL | which may be for want of memory"}
    record = a_record(
        {
            "dpo-chat": [failed, a_run("padded", [2.0] * 4), a_run("tree", [1.0] * 4), {"side": "tree", "failed": "x"}],
            "kto": [failed],
        }
    )
    text = tables([record])
    assert text.count("| TRL | failed: ended by SIGKILL \\| which may be for want of memory |") == 2
    assert "1 of 2 runs failed" in text
    assert "| 2.00 x |" in text
    assert "against TRL" not in text  # nothing to say in that column
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| xpo")}
    header = next(line for line in text.splitlines() if line.startswith("| side"))
    assert widths == {header.count("|")}


def test_rows_that_one_side_did_not_see_are_told() -> None:
    text = tables([a_record({"dpo-chat": [a_run("trl", [1.0] * 3, tokens=90)]})])
    assert "saw 90 tokens in place of 100: not the same rows" in text


def test_a_side_that_was_not_what_its_name_says_is_told() -> None:
    runs = [a_run("tree", [1.0] * 3, layout="padded"), a_run("warm", [1.0] * 3, layout="tree", reference_scored=4)]
    text = tables([a_record({"dpo-chat": runs})])
    assert "xpo, tree: the layout was padded, because tree cannot be used with this model." in text
    assert "xpo, tree, warm cache: the cache was not warm" in text


def test_a_case_measured_again_replaces_its_table_and_no_other() -> None:
    first = a_record({"dpo-chat": [a_run("tree", [1.0] * 3)], "kto": [a_run("tree", [1.0] * 3)]})
    again = {**a_record({"kto": [a_run("tree", [4.0] * 3)]}), "started": "2025-01-03T00:00:00+00:00"}
    text = tables([again, first])
    assert text.count("(`kto`)") == text.count("(`dpo-chat`)") == 1
    assert "4 (4 to 4)" in text
    elsewhere = {**again, "machine": {"kind": "cpu", "name": "Another machine", "threads": 2}}
    assert tables([elsewhere, first]).count("(`kto`)") == 2


def test_dpo_with_a_warm_cache_is_set_against_simpo() -> None:
    record = a_record({"dpo-chat": [a_run("warm", [3.0] * 3)], "simpo": [a_run("tree", [2.0] * 3)]})
    assert "A step of DPO with a warm reference cache takes 1.50 times as long as one of SimPO." in tables([record])


def test_records_are_added_and_read_back(tmp_path: Path) -> None:
    record = a_record({"dpo-chat": [a_run("tree", [1.0] * 3)]})
    path = place(record, tmp_path)
    save(record, path)
    assert (path.name, place(record, tmp_path).name) == (
        "throughput-2025-01-02-cpu.json",
        "throughput-2025-01-02-cpu-2.json",
    )
    assert RECORDS.read(path) == record
    assert newest(tmp_path) == tables([record])
    assert newest(tmp_path / "nowhere") == "Nothing has been measured yet.\n"
    path.write_text("{}")
    with pytest.raises(SettingError, match="not a record of this benchmark"):
        RECORDS.read(path)
