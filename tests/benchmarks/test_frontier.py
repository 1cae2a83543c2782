"""The frontier: best-of-n, the KL of samples, the front and what a table says of it, and one tiny run to a figure."""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from benchmarks.frontier import run as running
from benchmarks.frontier.__main__ import main
from benchmarks.frontier.best_of import best_of, kl_bound
from benchmarks.frontier.figure import draw
from benchmarks.frontier.look import divergences, drawn, held_out, look, model, rewards_of
from benchmarks.frontier.methods import BEST_OF, SWEEPS, Sweep, Work
from benchmarks.frontier.points import Point, failures, front, points_of, reward_at, start_of
from benchmarks.frontier.record import RECORDS, begin
from benchmarks.frontier.run import identities, run
from benchmarks.frontier.table import newest, tables
from tests import tiny
from xpo.errors import SettingError
from xpo.testbed import model_path
from xpo.testbed.reward import reward, text
from xpo.train.intervals import Estimate

# Best of n


def test_the_best_of_n_is_the_mean_over_all_choices_of_n() -> None:
    rewards = [0.3, -1.0, 2.0, 2.0, 0.1]
    for n in range(1, 6):
        assert best_of(rewards, n) == pytest.approx(fmean(max(some) for some in combinations(rewards, n)))
    with pytest.raises(ValueError, match="best of 6"):
        best_of(rewards, 6)


def test_the_bound_is_the_kl_of_best_of_n_where_no_sample_is_likely() -> None:
    """The KL computed of the distribution itself, of a million answers that are equally likely."""
    count, n = 1_000_000, 8
    ranks = torch.arange(1, count + 1, dtype=torch.float64) / count
    shares = ranks**n - (ranks - 1 / count) ** n
    assert kl_bound(n) == pytest.approx(float((shares * (shares * count).log()).sum()), abs=1e-4)
    assert kl_bound(1) == 0


# Looking


def test_the_kl_of_a_completion_is_the_sum_of_that_of_its_tokens() -> None:
    policy, start = tiny.model(0), tiny.model(0)
    with torch.no_grad():
        policy.lm_head.weight += 0.05 * torch.randn(
            policy.lm_head.weight.shape, generator=torch.Generator().manual_seed(1)
        )
    groups = tiny.groups("pairs", 4, longest=5)
    found = divergences(policy, start, groups)
    for group, some in zip(groups, found, strict=True):
        for said, value in zip(group.completions, some, strict=True):
            total = 0.0
            for step in range(len(said.ids)):
                ids = torch.tensor([group.prompt_ids + said.ids[:step]])
                with torch.no_grad():
                    p, q = (one(ids).logits[0, -1].double().log_softmax(-1) for one in (policy, start))
                total += float((p.exp() * (p - q)).sum())
            assert value == pytest.approx(total, rel=1e-4)
    assert all(value == 0 for some in divergences(start, start, groups) for value in some)


def test_the_start_has_no_kl_to_itself_and_the_reward_of_its_words() -> None:
    seen = look(model_path(), prompts=3, samples=2, seed=5)
    assert seen.kl == [0, 0, 0]
    assert len(seen.rewards) == len(seen.tokens) == 3
    groups = drawn(model(model_path()), 3, 2, 5, "frontier")
    assert [fmean(some) for some in rewards_of(groups)] == seen.rewards
    words = AutoTokenizer.from_pretrained(model_path()).decode(groups[0].completions[1].ids, skip_special_tokens=True)
    assert rewards_of(groups)[0][1] == reward(text(groups[0].source["prompt"]), words)
    assert len(held_out()) == 200


# Points


def point(kl: float, value: float, half: float = 0.1, **more: Any) -> Point:
    return Point("", 1, 1, Estimate(kl, kl, kl), Estimate(value, value - half, value + half), **more)


def test_the_front_holds_what_no_other_point_beats() -> None:
    rng = random.Random(3)
    points = [point(rng.uniform(0, 9), rng.uniform(0, 3)) for _ in range(60)] + [point(2, 1.0), point(2, 1.0)]
    line = front(points)
    for one in points:
        beaten = any(
            (other.kl.value <= one.kl.value and other.reward.value > one.reward.value)
            or (other.kl.value < one.kl.value and other.reward.value >= one.reward.value)
            for other in points
        )
        assert (one in line) == (not beaten)
    assert line == sorted(line, key=lambda one: one.kl.value)


def test_the_reward_at_a_kl_is_on_the_line_between_its_neighbours() -> None:
    points = [point(1, 1.0, 0.1), point(1.5, 0.2), point(3, 2.0, 0.3)]
    found = reward_at(points, 2)
    assert found == pytest.approx((1.5, 1.3, 1.7))
    assert reward_at(points, 1) == pytest.approx((1.0, 0.9, 1.1))


def test_there_is_no_reward_at_a_kl_without_points_around() -> None:
    points = [point(1, 1.0), point(3, 2.0)]
    assert reward_at(points, 0.9) is None  # nothing below it
    assert reward_at(points, 3.1) is None  # nothing above
    assert reward_at([point(0.4, 1.0), point(1, 2)], 0.9) is None  # too far below
    assert reward_at([], 1) is None


def test_more_kl_for_less_reward_leaves_what_less_kl_had() -> None:
    points = [point(1, 1.0, 0.2), point(6, 0.5)]
    assert reward_at([*points, point(3, 2.0, 0.4)], 5) == pytest.approx((2.0, 1.6, 2.4))


# Records and tables


def of_run(method: str, setting: dict[str, float], seed: int, *points: tuple[float, float]) -> dict[str, Any]:
    """A run by (KL, reward) of its looks."""
    seen = [
        {
            "step": 10 * number,
            "reward": {"value": value, "low": value - 0.2, "high": value + 0.2},
            "kl": {"value": kl, "low": kl - 0.1, "high": kl + 0.1},
            "tokens": 20.0,
        }
        for number, (kl, value) in enumerate(points, 1)
    ]
    return {"method": method, "setting": setting, "seed": seed, "seconds": 1.0, "points": seen}


def of_best(seed: int) -> dict[str, Any]:
    seen = [
        {"n": n, "reward": {"value": n / 4, "low": n / 4 - 0.1, "high": n / 4 + 0.1}, "kl": {"value": kl_bound(n)}}
        for n in (1, 2, 4, 8)
    ]
    return {"method": BEST_OF, "setting": {}, "seed": seed, "seconds": 1.0, "points": seen}


def of_record(*runs: dict[str, Any]) -> dict[str, Any]:
    machine = {"name": "Abacus", "threads": 1}
    known = {"machine": machine, "versions": {"torch": "9"}, "git": None, "finished": "2026-01-02T01:00:00"}
    return {**begin(Work(steps=20, looks=2)), "started": "2026-01-02T00:00:00", **known, "runs": list(runs)}


RUNS = (
    of_run("ppo", {"kl_coef": 0.1}, 0, (0.6, 1.0), (1.9, 2.5)),
    of_run("ppo", {"kl_coef": 0.1}, 1, (0.8, 1.2), (2.1, 2.7)),
    of_run("dpo", {"beta": 0.1}, 0, (0.7, 0.2), (1.3, 0.4)),
    {"method": "dpo", "setting": {"beta": 1.0}, "seed": 0, "failed": "ValueError: a | b", "seconds": 1.0},
    of_best(0),
)


def test_points_are_over_seeds_and_the_last_is_the_end() -> None:
    first, last = points_of(of_record(*RUNS), "ppo")
    assert (first.step, first.seeds, first.last, last.step, last.last) == (10, 2, False, 20, True)
    assert first.kl.value == pytest.approx(0.7)
    assert first.reward.value == pytest.approx(1.1)
    assert last.reward.high - last.reward.value == pytest.approx(1.96 * 0.1, rel=1e-3)  # of two seeds at -/+ 0.1
    assert [one.label for one in points_of(of_record(*RUNS), BEST_OF)] == ["n = 2", "n = 4", "n = 8"]
    start = start_of(of_record(*RUNS))
    assert start is not None
    assert start.value == 0.25
    assert start_of(of_record(*RUNS[:3])) is None
    assert list(failures(of_record(*RUNS), "dpo")) == [("beta 1, seed 0", "ValueError: a | b")]


def test_a_table_says_who_has_the_most_reward_where_and_what_failed() -> None:
    told = tables(of_record(*RUNS))
    # At 1 nat: PPO on the line from (0.7, 1.1) to (2, 2.6), DPO from (0.7, 0.2) to (1.3, 0.4), best of 4 to 8.
    (line,) = [line for line in told.splitlines() if line.startswith("| 1 |")]
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    best = 1 + (1 - kl_bound(4)) / (kl_bound(8) - kl_bound(4))
    assert [cell.split(" ")[0] for cell in cells[:3]] == ["1.45", "0.30", f"{best:.2f}"]
    assert cells[3] == "best of n, not told from PPO"  # apart by 0.20, of which 0.22 may be chance
    (line,) = [line for line in told.splitlines() if line.startswith("| 2 |")]
    assert line.endswith("|  |")  # PPO alone leads nobody
    assert "| PPO | kl_coef 0.1 | the known reward of its samples | 2 | 2.00 [1.80, 2.20] |" in told
    assert "| DPO | beta 1, seed 0 | pairs that a labeller judged |  |  | failed: ValueError: a \\| b |  |" in told
    assert "| best of n | n = 8 |" in told
    assert "at most 1.20" in told
    assert "| the start |  |  |  | 0 | 0.25 [0.15, 0.35] |" in told
    assert "Abacus, 1 threads" in told


def test_the_figure_is_made_of_the_record_alone_and_is_the_same_again(tmp_path: Path) -> None:
    draw(of_record(*RUNS), tmp_path / "a.svg")
    draw(of_record(*RUNS), tmp_path / "b.svg")
    drawn_once = (tmp_path / "a.svg").read_bytes()
    assert drawn_once == (tmp_path / "b.svg").read_bytes()
    draw(of_record(*RUNS[1:]), tmp_path / "b.svg")
    assert drawn_once != (tmp_path / "b.svg").read_bytes()
    draw(of_record(RUNS[3]), tmp_path / "nothing.svg")  # all that was tried failed
    assert (tmp_path / "nothing.svg").stat().st_size > 0


def test_the_newest_record_is_shown_with_its_figure(tmp_path: Path) -> None:
    assert newest(tmp_path) == "Nothing has been measured yet.\n"
    record = of_record(*RUNS)
    RECORDS.place(record, tmp_path).write_text(json.dumps(record), encoding="utf-8")
    later = {**record, "started": "2026-01-02T05:00:00", "runs": []}
    assert RECORDS.place(later, tmp_path).name == "frontier-2026-01-02-2.json"
    RECORDS.place(later, tmp_path).write_text(json.dumps(later), encoding="utf-8")
    assert newest(tmp_path).startswith(
        f"![Mean true reward against KL to the start]({tmp_path.name}/frontier-2026-01-02-2.svg)"
    )
    assert [path.name for path in RECORDS.everything(tmp_path)] == [
        "frontier-2026-01-02.json",
        "frontier-2026-01-02-2.json",
    ]


def test_records_of_other_benchmarks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "frontier-x.json").write_text('{"benchmark": "testbed", "format": 1}', encoding="utf-8")
    with pytest.raises(SettingError, match="not a record of this benchmark"):
        RECORDS.read(tmp_path / "frontier-x.json")


# Runs


def test_work_that_would_leave_out_the_end_or_the_largest_n_is_refused() -> None:
    with pytest.raises(SettingError, match="100 steps cannot be looked at 3 times"):
        Work(steps=100, looks=3)
    with pytest.raises(SettingError, match="best of 64 cannot be told from a pool of 8"):
        Work(pool=8)


def test_seeds_take_turns() -> None:
    found = list(identities(["dpo", BEST_OF], [0, 1]))
    values = SWEEPS["dpo"].values
    assert found[: len(values)] == [{"method": "dpo", "setting": {"beta": one}, "seed": 0} for one in values]
    assert found[len(values)] == {"method": BEST_OF, "setting": {}, "seed": 0}
    assert all(one["seed"] == 1 for one in found[len(values) + 1 :])


def test_a_run_leaves_a_record_and_a_figure_and_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(SWEEPS, "ppo", Sweep("PPO", "ppo", "kl_coef", (0.1,), "rewards"))
    work = Work(
        steps=4,  # a rate that warms up is 0 at the first
        looks=2,
        prompts=3,
        samples=2,
        pool=4,
        sizes=(2, 4),
        also={"max_completion_length": 16, "per_device_train_batch_size": 2},
    )
    output, folder = tmp_path / "results", tmp_path / "work"
    record, path = run(["ppo", BEST_OF], [0], output, folder, work=work)
    trained, chosen = record["runs"]
    assert "failed" not in trained, trained
    assert [one["step"] for one in trained["points"]] == [2, 4]
    assert all(one["kl"]["value"] > 0 for one in trained["points"])
    assert [one["n"] for one in chosen["points"]] == [1, 2, 4]
    values = [one["reward"]["value"] for one in chosen["points"]]
    assert values == sorted(values)
    assert path.with_suffix(".svg").is_file()
    assert str(tmp_path) not in path.read_text()
    assert not (folder / "run").exists()

    def broken(*_: Any) -> list[Any]:
        raise RuntimeError("not\nthis time")

    monkeypatch.setattr(running, "_trained", broken)
    again, same = run(["ppo", BEST_OF], [0, 1], output, folder, resume=path, work=work)
    assert same == path
    assert again["runs"][:2] == [trained, chosen]
    assert [one.get("failed") for one in again["runs"][2:]] == ["RuntimeError: not this time", None]
    with pytest.raises(SettingError, match="begin a new record"):
        run(["ppo"], [0], output, folder, resume=path, work=Work())


def test_the_program_draws_and_tells_of_records_and_refuses_what_it_does_not_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = of_record(*RUNS)
    path = RECORDS.place(record, tmp_path)
    path.write_text(json.dumps(record), encoding="utf-8")
    assert main(["figure", str(path)]) == 0
    assert path.with_suffix(".svg").is_file()
    assert main(["table", str(path)]) == 0
    assert "Where the runs end" in capsys.readouterr().out
    assert main(["--methods", "magic"]) == 2
    assert "no method magic here; there are ppo, rloo" in capsys.readouterr().err
