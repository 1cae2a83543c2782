"""Cells for real, in this process: what is trained, what is examined, and that it is the same every time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.bench.conftest import Here, suite
from tests.bench.test_suite import tables
from tests.conftest import MakePackage
from xpo.bench.data import Sources, halves, parts
from xpo.bench.exam import Feedback, agreed, look
from xpo.bench.settings import run_settings
from xpo.data.sources import read
from xpo.models.load import load_policy
from xpo.train.record import RunRecord
from xpo.train.settings import ModelSettings

COMMON = (
    "--use_cpu --per_device_train_batch_size 4 --learning_rate 1e-2 --eval_tokens 5 --eval_size 10 --eval_prompts 5"
)


@pytest.fixture
def line(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(small)
    return f"--model model --dataset pairs.jsonl --reward mine.py:short {COMMON} --output_dir {tmp_path / 'one'}"


def cells(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "records.json").read_text())["cells"]
    return found


def quality(folder: Path) -> str:
    return (folder / "table.md").read_text().partition("## What training took")[0]


BROKEN = """
from xpo import Algorithm, Paper, hookimpl

class Broken(Algorithm):
    name, summary, equation, data = "broken", "it fails", "L = 0", "pairs"
    paper = Paper("none", "http://example.org", 2024)

    def loss(self, batch, policy, reference):
        raise RuntimeError("nothing to be had here")

@hookimpl
def xpo_algorithms():
    return [Broken]
"""


def test_two_suites_of_the_same_seeds_give_the_same_table_and_a_broken_method_is_in_it(
    line: str, tmp_path: Path, package: MakePackage
) -> None:
    package("fails", {"fails.py": BROKEN}, {"fails": "fails"})
    words = f"--algos dpo,broken --seeds 0,1 --max_steps 2 {line}"
    first = suite(words, Here())
    suite(words.replace("/one", "/two"), Here())
    assert quality(tmp_path / "one") == quality(tmp_path / "two")
    assert "| broken | 0/2 | failed |" in quality(tmp_path / "one")
    reason = "RuntimeError: nothing to be had here (exit status 1)"
    assert first.failures == [("broken, seed 0", reason), ("broken, seed 1", reason)]
    good = [one for one in cells(tmp_path / "one") if one["status"] == "done"]
    assert len(good) == 2
    for one in good:
        seen = one["examined"]["test"]
        assert {len(seen[key]) for key in ("rewards", "wins", "lengths", "kl")} == {5}
        assert len(seen["agreed"]) == 10
        assert seen["rewards"] == [-float(length) for length in seen["lengths"]]
        assert (one["steps"], one["trainable"]) == (2, one["parameters"])
        assert one["tokens"] > 0
        folder = tmp_path / "one" / one["folder"]
        assert RunRecord.load(folder).seed == one["seed"]
        assert not (folder / "run").exists()
    assert good[0]["examined"] != good[1]["examined"]  # seeds differ


def test_what_is_examined_is_what_was_trained(line: str, tmp_path: Path) -> None:
    suite(f"--algos dpo --max_steps 3 --keep_models {line}", Here())
    [cell] = cells(tmp_path / "one")
    start = json.loads((tmp_path / "one/start/result.json").read_text())["examined"]["test"]
    models = [
        load_policy(ModelSettings(model_name_or_path=str(folder)), training=False).model.eval()
        for folder in ("model", tmp_path / "one" / cell["folder"] / "run")
    ]
    settings = run_settings("dpo", cell["settings"], output_dir="none")
    from xpo.bench.data import sources
    from xpo.plugins import load

    shared = {"eval_prompts": 5, "validation": False}
    part = parts(sources(settings, load()), settings, tiny.tokenizer(), shared)["test"]
    seen = cell["examined"]["test"]

    def logp(model: torch.nn.Module, prompt: list[int], said: list[int]) -> float:
        with torch.no_grad():
            scores = model(torch.tensor([prompt + said])).logits[0].log_softmax(-1)
        return sum(scores[len(prompt) + place - 1, token].item() for place, token in enumerate(said))

    gains = []
    for group in part.compared:
        better, worse = (
            logp(models[1], group.prompt_ids, one.ids) - logp(models[0], group.prompt_ids, one.ids)
            for one in group.completions
        )
        gains.append(float(better > worse))
    assert seen["agreed"] == gains
    wins = [
        1.0 if new > old else 0.5 if new == old else 0.0
        for new, old in zip(seen["rewards"], start["rewards"], strict=True)
    ]
    assert seen["wins"] == wins
    sampled = look(models[1], tiny.tokenizer(), {"test": part}, Feedback([], None), 5).views["test"].groups
    assert [len(group.completions[0].ids) for group in sampled] == seen["lengths"]
    far = [
        logp(models[1], group.prompt_ids, group.completions[0].ids)
        - logp(models[0], group.prompt_ids, group.completions[0].ids)
        for group in sampled
    ]
    assert seen["kl"] == pytest.approx(far, abs=1e-4)
    assert max(map(abs, far)) > 1e-3


def test_a_budget_of_tokens_ends_every_run_at_about_the_same_point(line: str, tmp_path: Path) -> None:
    suite(f"--algos dpo,sft --budget_tokens 300 {line}", Here())
    for cell in cells(tmp_path / "one"):
        assert 300 <= cell["tokens"] < 300 + 4 * 30, cell["method"]
        history = (tmp_path / "one" / cell["folder"] / "history.jsonl").read_text().splitlines()
        rates = {json.loads(line)["learning_rate"] for line in history if "learning_rate" in line and '"loss"' in line}
        assert rates == {1e-2}
    steps = {cell["method"]: cell["steps"] for cell in cells(tmp_path / "one")}
    assert steps["sft"] > steps["dpo"]  # a row is one completion


def test_settings_are_examined_on_prompts_of_their_own(line: str, tmp_path: Path) -> None:
    found = suite(f"--algos dpo --max_steps 1 --grid beta=0.1,5 {line}", Here())
    assert len(found.tried) == 2
    for cell in cells(tmp_path / "one"):
        assert {name: len(part["kl"]) for name, part in cell["examined"].items()} == {"test": 5, "validation": 5}


def test_what_became_of_held_out_rows_is_in_the_notes(line: str, small: Path, tmp_path: Path) -> None:
    rows = (small / "pairs.jsonl").read_text().splitlines(True)
    long = json.dumps({**json.loads(rows[0]), "chosen": "w1 " * 200, "prompt": "w2"})
    (tmp_path / "held.jsonl").write_text("".join([*rows[:8], f"{long}\n"]))
    words = line.replace("--eval_size 10", f"--eval_dataset {tmp_path}/held.jsonl --max_length 100")
    found = suite(f"--algos dpo --max_steps 1 {words}", Here())
    note = "held.jsonl: 1 of 9 rows dropped: the completion alone is longer than --max_length 100 allows"
    assert note in found.notes
    assert f"* {note}\n" in (tmp_path / "one/table.md").read_text()
    [cell] = cells(tmp_path / "one")
    assert len(cell["examined"]["test"]["agreed"]) == 8


def test_halves_share_no_prompt_and_depend_on_prompts_alone() -> None:
    groups = tiny.groups("pairs", 21)
    chosen, rest = halves([*groups, *groups[:3]])
    assert not {tuple(one.prompt_ids) for one in chosen} & {tuple(one.prompt_ids) for one in rest}
    assert len(chosen) + len(rest) == 24
    again, _ = halves(groups[::-1])
    assert {tuple(one.prompt_ids) for one in again} == {tuple(one.prompt_ids) for one in chosen}


def test_held_out_rows_are_the_same_for_every_seed_and_none_of_them_is_trained_on(small: Path) -> None:
    from xpo.bench.data import sources
    from xpo.plugins import load

    found: list[Sources] = []
    for seed in (0, 1):
        more = {"model": str(small / "model"), "dataset": str(small / "pairs.jsonl"), "eval_size": 10, "max_steps": 1}
        found.append(sources(run_settings("dpo", more, output_dir="none", seed=seed), load()))
    assert [row["prompt"] for row in found[0].test.rows] == [row["prompt"] for row in found[1].test.rows]
    assert not {row["prompt"] for row in found[0].test.rows} & {row["prompt"] for row in found[0].learned.rows}
    assert len(found[0].test) + len(found[0].learned) == len(read(str(small / "pairs.jsonl")))


def test_a_judge_may_take_the_place_of_a_reward(line: str, small: Path, tmp_path: Path) -> None:
    (small / "judge.py").write_text(
        "def longer(prompts, completions, **_):\n"
        "    return [float(len(one.split()) > len(other.split())) for one, other in completions]\n"
    )
    suite(f"--algos dpo --max_steps 2 --eval_judge judge.py:longer {line}", Here())
    [cell] = cells(tmp_path / "one")
    start = json.loads((tmp_path / "one/start/result.json").read_text())["examined"]["test"]
    seen = cell["examined"]["test"]
    assert seen["rewards"] == []
    assert seen["unjudged"] == 0
    words = [[text.split() for text in part["texts"]] for part in (seen, start)]
    for win, new, old in zip(seen["wins"], *words, strict=False):
        assert win == (0.5 if new == old else float(len(new) > len(old)))


def test_what_diverged_has_failed(line: str, tmp_path: Path) -> None:
    found = suite(f"--algos dpo --max_steps 3 {line.replace('1e-2', '1e30')} --max_grad_norm 0", Here())
    [(_, why)] = found.failures
    assert "not finite" in why or "Error" in why


def test_labels_are_compared_each_with_all_of_the_other_sort() -> None:
    groups = tiny.groups("labels", 6)
    for group, label in zip(groups, (True, False, True, False, False, True), strict=True):
        group.completions[0].label = label
    assert agreed([3.0, 1.0, 2.0, 2.0, 5.0, 0.0], groups) == [2 / 3, 0.5, 0.0]


def test_a_start_that_changed_is_noticed(line: str, tmp_path: Path, small: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        suite(f"--algos dpo --max_steps 1 {line}", Here(end=1))
    path = tmp_path / "one/start/result.json"
    body: Mapping[str, Any] = {**json.loads(path.read_text()), "model": "another"}
    path.write_text(json.dumps(body))
    found = suite(f"--algos dpo --max_steps 1 {line}", Here())
    assert "the start model is no longer what it was" in found.failures[0][1]
    [cell] = cells(tmp_path / "one")
    assert "loss" not in (tmp_path / "one" / cell["log"]).read_text()  # nor is time spent on training it


def test_tables_are_redrawn_from_what_cells_left(line: str, tmp_path: Path) -> None:
    from xpo.bench.run import write_outputs

    suite(f"--algos rloo --max_steps 1 --max_completion_length 5 {line}", Here())  # and a method that samples
    assert [cell["status"] for cell in cells(tmp_path / "one")] == ["done"]
    before = tables(tmp_path / "one")
    for name in before:
        (tmp_path / "one" / name).unlink()
    write_outputs(tmp_path / "one")
    assert tables(tmp_path / "one") == before


def test_adapters_are_examined_on_the_model_they_were_trained_on(line: str, tmp_path: Path) -> None:
    suite(f"--algos dpo --max_steps 2 --use_peft --lora_r 2 {line}", Here())
    [cell] = cells(tmp_path / "one")
    assert cell["status"] == "done", cell
    assert 0 < cell["trainable"] < cell["parameters"]
    assert any(abs(one) > 1e-5 for one in cell["examined"]["test"]["kl"])
