"""The throughput benchmark: its arithmetic, its rows, its tables, and that all sides take the same steps."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, quantiles
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.throughput import __main__ as program
from benchmarks.throughput.cases import CASES, LISTWISE, SIDES
from benchmarks.throughput.flops import Amount, Shape, Work, policy_flops, reference_flops, shape_of, work
from benchmarks.throughput.install import install
from benchmarks.throughput.job import Setup
from benchmarks.throughput.measure import ROOT, measure, turns
from benchmarks.throughput.model import make_tokenizer
from benchmarks.throughput.numbers import summaries
from benchmarks.throughput.plackett_luce import ABSENT, plackett_luce_loss
from benchmarks.throughput.plan import Plan, plan
from benchmarks.throughput.record import RECORDS
from benchmarks.throughput.rows import MADE_UP, Source, made_up, rows_of, source
from scripts.docs import generate
from tests import tiny
from xpo import Completion, DataError, Group
from xpo.plugins import load

# Arithmetic


def group(prompt: int, *completions: int, frozen: int = 0) -> Group:
    some = [Completion([1] * length) for length in completions]
    some += [Completion([1] * frozen, trainable=False)] if frozen else []
    return Group([1] * prompt, some)


def test_a_prompt_counts_once_and_the_last_token_of_a_completion_is_not_read() -> None:
    found = work([group(10, 3, 5), group(4, 2)])
    assert (found.rows, found.tokens, found.sequences) == (2, 24, 13 + 15 + 6)
    assert (found.trained.read, found.trained.labels) == (14 + 2 + 4 + 1, 10)
    # Each token attends to itself and what is before it: 1 + ... + 10, 11 + 12, 11 + ... + 14, 1 + ... + 4, 5.
    assert found.trained.contexts == 55 + 23 + 50 + 10 + 5
    assert found.frozen == Amount()


def test_a_completion_without_gradient_needs_forwards_only() -> None:
    shape = Shape(blocks=1000, adapters=10, head=300, attention=64, parameters=2000, full=False)
    plain, mixed = work([group(10, 3)]), work([group(10, 3, frozen=4)])
    extra = 2 * 1000 * 3 + 2 * 300 * 4 + 4 * 64 * (11 + 12 + 13)
    assert mixed.sequences == plain.sequences
    assert policy_flops(shape, mixed) - policy_flops(shape, plain) == extra + 2 * 10 * 3
    assert reference_flops(shape, mixed) - reference_flops(shape, plain) == extra


@pytest.mark.parametrize("rank", [None, 4])
def test_the_formula_is_what_torch_counts(rank: int | None) -> None:
    """Without a mask torch computes attention of every token to every other: the formula is given those contexts."""
    model: Any = tiny.model(num_hidden_layers=6, attn_implementation="eager")
    shape = shape_of(model.config, rank)
    if rank is not None:
        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    found = work([group(20, 9)])
    size = found.trained.read
    square = Work(**{**vars(found), "trained": Amount(size, found.trained.labels, size * size)})
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(input_ids=torch.ones(1, size, dtype=torch.long), logits_to_keep=9)
    with FlopCounterMode(display=False) as both:
        model(input_ids=torch.ones(1, size, dtype=torch.long), logits_to_keep=9).logits.sum().backward()
    adapters = 2 * shape.adapters * size
    assert forward.get_total_flops() == reference_flops(shape, square) + adapters
    # With adapters torch leaves out the gradient to what the first block reads.
    assert both.get_total_flops() == pytest.approx(policy_flops(shape, square), rel=0 if rank is None else 0.03)
    assert both.get_total_flops() <= policy_flops(shape, square)


def test_plackett_luce_of_two_is_dpo_and_of_three_the_product_of_choices() -> None:
    two = torch.tensor([[0.3, -0.2], [1.0, 2.0]])
    assert torch.allclose(plackett_luce_loss(two), -torch.nn.functional.logsigmoid(two[:, 0] - two[:, 1]))
    first, second, third = math.exp(0.1), math.exp(0.7), math.exp(-0.4)
    expected = -math.log(first / (first + second + third)) - math.log(second / (second + third))
    rewards = torch.tensor([[0.1, 0.7, -0.4], [0.1, 0.7, ABSENT]], requires_grad=True)
    losses = plackett_luce_loss(rewards)
    assert losses[0].item() == pytest.approx(expected)
    assert losses[1].item() == pytest.approx(-math.log(first / (first + second)))
    [gradient] = torch.autograd.grad(losses.sum(), rewards)
    assert gradient.isfinite().all()
    assert gradient[1, 2] == 0


# Rows


def test_made_up_rows_are_as_long_as_chat() -> None:
    rows = made_up("chat", 1500)
    prompts = [len(row["prompt"][0]["content"].split()) for row in rows]
    assert mean(prompts) == pytest.approx(106, rel=0.15)
    assert quantiles(prompts, n=10)[-1] == pytest.approx(248, rel=0.15)
    for name, lengths in zip(("chosen", "rejected"), MADE_UP["chat"][1:], strict=True):
        assert mean(len(row[name][0]["content"].split()) for row in rows) == pytest.approx(lengths.mean, rel=0.1)
    assert rows == made_up("chat", 1500)


def test_labels_are_one_side_of_each_pair_in_turn() -> None:
    pairs = made_up("chat", 4)
    rows = rows_of(CASES["kto"], pairs, seed=0)
    assert [row["label"] for row in rows] == [True, False, True, False]
    assert [row["completion"] for row in rows[:2]] == [pairs[0]["chosen"], pairs[1]["rejected"]]


@pytest.mark.parametrize("name", ["dpo-list4", "dpo-list8"])
def test_lists_borrow_the_answers_of_their_neighbours(name: str) -> None:
    pairs, case = made_up("chat", 6), CASES[name]
    for number, row in enumerate(rows_of(case, pairs, seed=0)):
        assert len(row["completions"]) == len(set(row["scores"])) == case.completions
        assert row["completions"][:2] == [pairs[number]["chosen"], pairs[number]["rejected"]]
        assert row["completions"][2] == pairs[(number + 1) % 6]["chosen"]


def test_a_source_says_nothing_of_what_its_rows_say(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "say", "chosen": "something", "rejected": "private"}) + "\n")
    found = source("chat", str(path), 1)
    assert set(found.describe()) == {"name", "rows", "sha256_of_rows"}
    assert "private" not in json.dumps(found.describe())
    path.write_text('{"text": "x"}\n')
    with pytest.raises(DataError, match="has no column prompt, chosen, rejected"):
        source("chat", str(path), 1)


@pytest.fixture
def listwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    install(tmp_path / "site")
    yield
    load.cache_clear()


@pytest.mark.usefixtures("listwise")
@pytest.mark.parametrize("name", ["dpo-chat", "kto", "dpo-list4"])
def test_a_plan_takes_rows_that_fit_each_with_its_own_prompt(name: str, tmp_path: Path) -> None:
    case, pairs = CASES[name], made_up("chat", 60)
    pairs[3] = {**pairs[3], "prompt": pairs[4]["prompt"]}
    tokenizer = make_tokenizer(pairs, 1500)
    made = plan(case, Source("x", "", pairs), tokenizer, tmp_path, steps=3, max_length=600, seed=1)
    rows = [json.loads(line) for line in Path(made.rows).read_text().splitlines()]
    prompts = [row["prompt"][0]["content"] for row in rows]
    assert len(set(prompts)) == len(prompts) == 3 * case.batch
    assert [step.rows for step in made.work] == [case.batch] * 3
    assert made.left_out > 0
    assert all(bool(step.frozen.read) == (name == "kto") for step in made.work)
    with pytest.raises(DataError, match="finds 0 that fit into 3 tokens"):
        plan(case, Source("x", "", pairs), tokenizer, tmp_path, steps=3, max_length=3, seed=1)


def test_no_held_out_prompt_is_trained_on(tmp_path: Path) -> None:
    rng = random.Random(0)
    pairs = [
        {"prompt": f"w{n % 30} w1", "chosen": f" w{n} w2", "rejected": f" {tiny.text(rng, 2, 5)}"} for n in range(36)
    ]
    made = plan(CASES["epoch"], Source("x", "", pairs), tiny.tokenizer(), tmp_path, steps=1, max_length=64, seed=1)
    assert made.held_out is not None
    held = json.loads(Path(made.held_out).read_text())
    trained = {json.loads(line)["prompt"] for line in Path(made.rows).read_text().splitlines()}
    assert held
    assert not {tiny.tokenizer().decode(pair["prompt"]) for pair in held} & trained
    assert len(held) + sum(step.rows for step in made.work) == len(pairs)


# Documentation


def test_the_generated_blocks_are_current() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert generate(text) == text, "run `make docs`"


# Runs


def test_sides_take_turns_and_the_cache_is_filled_once() -> None:
    assert list(turns(["trl", "tree", "warm"], 2)) == [
        (0, "trl"), (0, "tree"), (0, "cold"), (0, "warm"), (1, "tree"), (1, "warm"), (1, "trl"),
    ]  # fmt: skip


def test_every_side_of_a_case_is_known() -> None:
    for case in CASES.values():
        assert set(case.sides) <= set(SIDES)
        assert all(SIDES[side].library == "xpo" for side in case.sides) == (
            case.algorithm in ("simpo", LISTWISE) or case.name == "exact"
        )


def test_bad_words_are_refused_before_anything_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--cases", "dpo-chat", "--pairs", "nowhere.jsonl"], "There is no data file"),
        (
            ["--cases", "dpo-chat", "--size", "tiny", "--model", str(tmp_path)],
            "there is no model with a tokenizer.json",
        ),
    ):
        assert program.main([*words, "--output", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_process_that_fails_says_why_and_not_where(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps(made_up("chat", 1)[0]) + "\n")
    ready = Plan(str(tmp_path / "rows.jsonl"), work=[], held_out=None, left_out=0)
    words = {"steps": 1, "threads": 1, "timeout": 600.0}
    done = measure(
        CASES["dpo-chat"], ready, tmp_path / "nowhere", tmp_path, tmp_path / "site", Setup(), "padded", **words
    )  # fmt: skip
    assert set(done) == {"side", "failed"}
    assert "nowhere" in done["failed"]
    assert str(tmp_path) not in done["failed"]


@pytest.mark.slow
def test_trl_and_both_layouts_take_the_same_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    cases = ["dpo-chat", "kto", "dpo-list4", "epoch"]
    words = ["--cases", ",".join(cases), "--sides", "trl,padded,tree,warm", "--size", "tiny", "--repeats", "1"]
    pairs = tmp_path / "pairs.jsonl"
    testbed = source("plain", None, 0).rows[:120]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in testbed))
    words += ["--max_length", "200", "--threads", "1", "--plain-pairs", str(pairs)]
    assert program.main([*words, "--output", str(tmp_path)]) == 0
    [path] = tmp_path.glob("throughput-*.json")
    record = RECORDS.read(path)
    assert record["finished"] is not None
    for case in record["cases"]:
        found = summaries(record, case)
        assert list(found) == [
            side for side in ("trl", "padded", "tree", "cold", "warm") if side in CASES[case["name"]].sides
        ]
        for side, one in found.items():
            assert one.failed is None, one.failed
            assert not one.notes, one.notes
            assert all(value < 1e-4 for value in one.difference.values()), (case["name"], side)
            assert side == "cold" or 0 < one.share < 1  # type: ignore[operator]  # numbers, where all was measured
            assert one.memory > one.before > 10**8  # type: ignore[operator]  # numbers, where all was measured
            if case["algorithm"] == "dpo":
                assert one.losses[0] == pytest.approx(math.log(2), abs=1e-6)
            assert len(set(one.losses)) > 1
        if case["hold_out"]:
            assert len({round(one.accuracy, 6) for one in found.values()}) == 1  # type: ignore[arg-type]  # numbers, where all was measured
    load.cache_clear()
