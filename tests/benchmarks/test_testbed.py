"""The experiments on the testbed: their arithmetic, verdicts and tables, and that a record can be gone on with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks.records import find
from benchmarks.testbed import __main__ as program
from benchmarks.testbed import measure as measuring
from benchmarks.testbed import ranking
from benchmarks.testbed.ceiling import ceiling
from benchmarks.testbed.claims import CONTRARY, HELD, NOT, judged, verdict
from benchmarks.testbed.experiments import Real, Side, experiments, told
from benchmarks.testbed.forgetting import forgetting
from benchmarks.testbed.measure import identity
from benchmarks.testbed.numbers import beyond, difference, pooled
from benchmarks.testbed.online import PROMPTS, STEPS, known_judge, rewarded
from benchmarks.testbed.ranking import accuracy, ndcg
from benchmarks.testbed.record import RECORDS
from benchmarks.testbed.run import run
from benchmarks.testbed.table import newest, tables
from xpo import SettingError
from xpo.plugins import load
from xpo.testbed import model_path
from xpo.testbed.reward import reward
from xpo.train.intervals import Estimate
from xpo.train.record import Sample

# Arithmetic


def test_accuracy_and_ndcg_of_a_list() -> None:
    truth = [3.0, 1.0, 1.0, 0.0]
    assert accuracy([9, 5, 4, 1], truth) == ndcg([9, 5, 4, 1], truth) == 1
    assert accuracy([0, 1, 2, 3], truth) == 0
    assert accuracy([1, 1, 1, 1], truth) == 0.5
    best = 3 + 1 / math.log2(3) + 1 / 2
    assert ndcg([1, 2, 3, 4], truth) == pytest.approx((1 / math.log2(3) + 1 / 2 + 3 / math.log2(5)) / best)
    assert ndcg([1, 2], [5, 5]) == 1


def test_the_interval_over_seeds_is_the_wider_of_what_is_in_each_and_between_them() -> None:
    alike = pooled([Estimate(1, 0, 2)] * 4)
    assert alike == pytest.approx((1, 0.5, 1.5))
    apart = pooled([Estimate(0, -0.1, 0.1), Estimate(2, 1.9, 2.1)])
    assert apart.value == 1
    assert apart.high - 1 == pytest.approx(1.96 * 2**0.5 / 2**0.5, rel=1e-3)
    assert difference(Estimate(2, -1, 5), Estimate(1, -3, 5)) == pytest.approx((1, -4, 6))
    assert beyond(Estimate(0.7, 0.6, 0.9), 0.5) == pytest.approx((0.2, 0.1, 0.4))


def test_a_claim_holds_when_the_whole_interval_is_above_zero() -> None:
    assert verdict(Estimate(1, 0.1, 2)) == HELD
    assert verdict(Estimate(1, -0.1, 2)) == verdict(Estimate(1, math.nan, math.nan)) == NOT
    assert verdict(Estimate(-1, -2, -0.1)) == CONTRARY


def test_the_true_reward_agrees_with_the_labeller_as_often_as_its_temperature_lets_it() -> None:
    for kind, count in (("pairs", 200), ("lists", 1199)):
        found = ceiling(kind)
        assert found["comparisons"] == pytest.approx(count, abs=10)
        assert found["expected"] == pytest.approx(0.82, abs=0.03)
        assert found["here"] == pytest.approx(found["expected"], abs=0.06)


# Tables


def a_side(title: str, algo: str, data: str = "pairs", look: str = "ranking", **settings: Any) -> dict[str, Any]:
    return {"title": title, "algo": algo, "settings": settings, "look": look, "data": data}


def a_run(side: dict[str, Any], rise: float, seed: int = 0, ranks: str = "1.000 0.500", **more: Any) -> dict[str, Any]:
    def row(before: float, after: float) -> dict[str, Any]:
        change = [after - before - 0.2, after - before + 0.2]
        return {"before": before, "after": after, "interval_after": [after - 1, after + 1], "interval_change": change}

    rows = {"mean reward": row(0.25, 0.25 + rise), "mean length": row(20, 20 - 9 * rise), "KL to the start": row(0, 3)}
    rows["preference accuracy (implicit reward)"] = row(0.5, 0.5 + rise / 10)
    known = {key: side[key] for key in ("algo", "settings")}
    return {**known, "seed": seed, "steps": 2, "rows": rows, "ranking": {"accuracy": ranks, "ndcg": ranks}, **more}


def a_record(name: str, *sides: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "benchmark": "testbed",
        "format": 1,
        "started": "2025-01-02T00:00:00+00:00",
        "finished": None,
        "machine": {"name": "A machine", "threads": 1},
        "versions": {"torch": "9.9"},
        "git": {"commit": "0123456789abcdef", "dirty": True},
        "experiments": {name: {"title": "A title", "claim": "something is so", "sides": list(sides)}},
        "runs": runs,
    }


def test_a_table_has_every_side_with_its_verdict_and_failures_with_their_reason() -> None:
    up, flat, down, broken, absent = (a_side(name, name) for name in ("up", "flat", "down", "broken", "absent"))
    failed = {**{key: broken[key] for key in ("algo", "settings")}, "seed": 0, "failed": "ValueError: a | b"}
    runs = [a_run(up, 1.0), a_run(up, 0.9, 1), a_run(flat, 0.1), a_run(down, -1.0), failed]
    text = tables(a_record("raise", down, up, flat, broken, absent, runs=runs))
    assert "A machine, 1 threads, xpo at 0123456789 with changes, torch 9.9. This record is not finished." in text
    assert "| `raise` | something is so | 1 of 4 | flat; down | broken | 1 |" in text
    lines = [line for line in text.splitlines() if line.startswith(("| up", "| flat", "| down", "| broken"))]
    assert [line.split(" |")[0] for line in lines] == ["| up", "| flat", "| down", "| broken"]
    assert "| 2 | pairs | 0.25 | +0.95 [0.81, 1.09] | +1.00, +0.90 |" in lines[0]
    assert [line.split("| ")[-1] for line in lines[:3]] == ["held |", "not held |", "not held, the contrary |"]
    assert "failed: ValueError: a \\| b" in lines[3]
    assert "absent" not in text


def test_runs_online_show_start_end_and_wins_and_without_a_reward_what_the_judge_said() -> None:
    def wins(rate: float) -> dict[str, Any]:
        return {"before": 0.5, "after": rate, "interval_after": [rate - 0.1, rate + 0.1], "interval_change": None}

    sides = [a_side(name, name, "rollouts") for name in ("up", "down", "liked", "disliked", "even")]
    runs = []
    for side, rise, rate in zip(sides, (1.0, -1.0, 0, 0, 0), (0.9, 0.8, 0.7, 0.3, 0.55), strict=True):
        run = a_run(side, rise)
        run["rows"]["win rate against the start"] = wins(rate)
        if not rise:
            del run["rows"]["mean reward"]
        runs.append(run)
    lines = {line.title: line for line in judged(a_record("online", *sides, runs=runs), "online")}
    assert list(lines) == ["up", "down", "liked", "even", "disliked"]
    assert [line.verdict for line in lines.values()] == [HELD, CONTRARY, HELD, NOT, CONTRARY]
    assert lines["up"].cells["reward before"] == "0.25"
    assert lines["up"].cells["after"] == "1.25 [0.25, 2.25]"
    assert lines["up"].cells["change"] == "+1.00 [0.80, 1.20]"
    assert lines["liked"].cells["change"] == ""
    assert lines["liked"].cells["wins against the start"] == "70.0 [60.0, 80.0] %"
    assert lines["liked"].cells["KL to the start, nats"] == "3.0 [2.0, 4.0]"


def test_sides_are_held_against_dpo_list_by_list() -> None:
    base, better = a_side("dpo", "dpo"), a_side("robust", "robust_dpo")
    runs = [a_run(base, 0, ranks="0.100 0.900 0.400"), a_run(better, 0, ranks="0.200 1.000 0.500")]
    lines = judged(a_record("noise", base, better, runs=runs), "noise")
    assert [line.verdict for line in lines] == ["", HELD]
    assert lines[1].cells["more than dpo"] == "+10.0 [10.0, 10.0] %"
    lines = judged(a_record("length", base, better, runs=[a_run(base, 0), a_run(better, 1)]), "length")
    assert lines[1].cells["shorter than dpo by"] == "+9.0 [7.6, 10.4]"
    assert [line.verdict for line in lines] == ["", HELD]


def test_lists_of_four_are_held_against_lists_of_two_of_the_same_method() -> None:
    sides = [a_side("m, 2", "m", "lists", dataset="testbed:list_size=2"), a_side("m, 4", "m", "lists")]
    runs = [a_run(sides[0], 0, ranks="0.500 0.500"), a_run(sides[1], 0, ranks="0.600 0.700")]
    (line,) = judged(a_record("lists", *sides, runs=runs), "lists")
    assert (line.title, line.verdict, line.cells["nDCG, 4 less 2"]) == ("m", HELD, "+0.150 [0.052, 0.248]")


def test_plain_gradient_ascent_must_lose_what_the_others_keep() -> None:
    def facts(forget: float, retain: float) -> dict[str, Any]:
        rises = {"forget, trained": forget, "retain, trained": retain}
        return {
            name: {"before": 0.1, "after": 0.1 + rise, "interval_change": [rise, rise]} for name, rise in rises.items()
        }

    plain, npo = (a_side(name, name, "forget", "forgetting") for name in ("gradient_ascent", "npo"))
    for kept, words in ((0.01, [NOT, HELD]), (0.5, [HELD, NOT])):
        runs = [a_run(side, 0, forgetting=facts(2.0, kept)) for side in (plain, npo)]
        lines = judged(a_record("forget", plain, npo, runs=runs), "forget")
        assert [line.verdict for line in lines] == words
    runs = [a_run(npo, 0, forgetting=facts(0.0, 0.0))]
    assert judged(a_record("forget", npo, runs=runs), "forget")[0].verdict == NOT


def test_reward_models_are_held_against_the_true_reward() -> None:
    side = {**a_side("m", "m", look="curve"), "ceiling": {"expected": 0.8, "here": 0.79}}
    for high, word in ((0.75, NOT), (0.9, HELD)):
        row = {"accuracy": {"before": 0.5, "after": 0.7, "interval_after": [0.65, high], "interval_change": None}}
        one = {**a_run(side, 0), "rows": row, "curve": [[60, 0.71], [120, 0.7]]}
        (line,) = judged(a_record("reward", side, runs=[one]), "reward")
        assert (line.verdict, line.cells["best"]) == (word, "71.0 % at 60")


def test_a_loss_that_is_not_finite_is_seen() -> None:
    side = a_side("m", "m", look="losses", dataset="pairs.jsonl")
    for losses, word in (([0.7, 0.6], HELD), ([0.7, None], NOT), ([0.7], NOT)):
        (line,) = judged(a_record("real", side, runs=[{**a_run(side, 0), "losses": losses}]), "real")
        assert line.verdict == word


def test_without_records_there_is_nothing_to_show(tmp_path: Path) -> None:
    assert newest(tmp_path) == "Nothing has been measured yet.\n"
    (tmp_path / "testbed-a.json").write_text('{"benchmark": "throughput"}')
    with pytest.raises(SettingError, match="not a record of this benchmark"):
        newest(tmp_path)


# Experiments and runs


def test_real_data_is_left_out_where_none_is_given_and_known_by_name(tmp_path: Path) -> None:
    assert "real" not in experiments()
    for file in ("pairs.jsonl", "lists.jsonl"):
        (tmp_path / file).touch()
    real = Real(model=str(tmp_path), pairs=str(tmp_path / "pairs.jsonl"), lists=str(tmp_path / "lists.jsonl"))
    sides = {side.algo: side for side in experiments(["dpo", "sppo", "lipo", "kto", "kwise"], real)["real"].sides}
    assert {name: told(side.settings)["dataset"] for name, side in sides.items()} == {
        "dpo": "pairs.jsonl",
        "sppo": "lists.jsonl",  # needs scores
        "lipo": "lists.jsonl",
        "kwise": "lists.jsonl",
    }


def test_every_method_for_data_is_in_the_first_experiment() -> None:
    algos = [side.algo for side in experiments()["raise"].sides]
    assert {"dpo", "kto", "lipo", "sft", "dpo + 0.2*sft"} <= set(algos)
    assert not {"bradley_terry", "npo", "rloo"} & set(algos)


def test_every_method_of_samples_and_some_of_each_kind_of_data_run_online() -> None:
    sides = experiments()["online"].sides
    registry = load()
    ours = {name for name, entry in registry.algorithms.items() if entry.supplier.distribution == "xpo"}
    of_samples = {name for name in ours if registry.algorithms[name].cls.data == "rollouts"}
    assert {side.algo for side in sides if "online" not in side.settings} == of_samples
    kinds = {registry.algorithms[side.algo].cls.data for side in sides if "online" in side.settings}
    assert kinds == {"pairs", "labels", "lists"}
    assert len({side.title for side in sides}) == len(sides)
    assert {side.algo: side.settings["rounds"] for side in sides if "rounds" in side.settings} == {"sppo": 3, "dno": 3}
    (judge,) = [side for side in sides if "judge" in side.settings]
    assert identity(judge)["settings"] == {
        "max_steps": STEPS,
        "online": True,
        "judge": "known_judge",
        "sample_completions": PROMPTS,
    }


def test_the_judge_of_the_known_reward_is_a_sigmoid_of_the_difference() -> None:
    prompts = ["Review the watch, please. How was the price?"] * 2
    good, bad = "The watch is superb. The price is great.", "The watch is terrible."
    gap = reward(prompts[0], good) - reward(prompts[0], bad)
    assert gap > 1
    chance = 1 / (1 + math.exp(-gap))
    assert known_judge(prompts, [(good, bad), (bad, good)]) == pytest.approx([chance, 1 - chance])


def test_the_reward_of_a_run_with_a_judge_is_that_of_the_samples_in_its_record() -> None:
    prompt, good, bad = "Review the watch, please. How was the price?", "The watch is superb.", "The watch is terrible."
    row = rewarded([Sample(prompt, bad, good), Sample(prompt, good, good)])["mean reward"]
    gap = reward(prompt, good) - reward(prompt, bad)
    assert row["after"] == pytest.approx(reward(prompt, good))
    assert row["after"] - row["before"] == pytest.approx(gap / 2)
    assert row["interval_change"] == pytest.approx((gap / 2 - 1.96 * gap / 2, gap / 2 + 1.96 * gap / 2), rel=1e-3)


def test_a_run_leaves_a_record_that_can_be_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPO_CACHE", str(tmp_path / "cache"))
    pairs = [{"prompt": f"Say {n}.", "chosen": f" {n}", "rejected": f" {n + 1}"} for n in range(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    real = Real(model=str(model_path()), pairs=str(tmp_path / "pairs.jsonl"))
    wanted = {"real": experiments(["dpo", "nonsense"], real)["real"]}
    record, path = run(wanted, [0], tmp_path, tmp_path, also={"max_steps": 2})
    (done,) = record["runs"]
    assert "failed" not in done, done
    assert (done["algo"], done["steps"], done["settings"]["dataset"]) == ("dpo", 2, "pairs.jsonl")
    assert done["losses"][0] == pytest.approx(math.log(2))
    assert str(tmp_path) not in path.read_text()
    assert "| dpo | 1 | pairs.jsonl | 0.6931 to " in newest(tmp_path)

    def broken(algo: str, settings: Any) -> None:
        raise ValueError("not\nthis time")

    monkeypatch.setattr(measuring, "_command", broken)
    record, again = run(wanted, [0, 1], tmp_path, tmp_path, resume=path)
    assert again == path
    found = [(one["seed"], one.get("failed")) for one in RECORDS.read(path)["runs"]]
    assert found == [(0, None), (1, "ValueError: not this time")]
    kept = find(record, {"algo": "dpo", "seed": 0})
    assert kept is not None
    assert (kept["seconds"], kept["losses"]) == (done["seconds"], done["losses"])


def test_an_untrained_policy_has_forgotten_nothing_and_prefers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    few = ranking.held_out()[:8]
    monkeypatch.setattr(ranking, "held_out", lambda: few)
    ranked = ranking.ranking(model_path())
    assert ranked["accuracy"] == [0.5] * 8
    assert len(ranked["ndcg"]) == 8
    facts = forgetting(model_path())
    assert {name: found["rows"] for name, found in facts.items()} == {
        "forget, trained": 72,
        "retain, trained": 216,
        "forget, held out": 18,
        "retain, held out": 54,
    }
    assert all(found["interval_change"] == (0, 0) and found["before"] < 0.01 for found in facts.values())


def test_a_command_line_that_is_refused_fails_with_its_status(tmp_path: Path) -> None:
    done = measuring.measure(Side("x", "dpo", {"no_such_setting": 1}, command=True), 0, tmp_path)
    assert done["failed"].startswith("RuntimeError: xpo train ended with status 2")


def test_the_program_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--experiments", "real"]) == 2
    assert "no runs for real; there are raise, lists" in capsys.readouterr().err
