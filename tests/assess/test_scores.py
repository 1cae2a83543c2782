"""Scores of models against plain transformers: logits, log_softmax, gather, one completion at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests import tiny
from tests.assess.byhand import ROWS, by_hand, held, load, logps
from tests.assess.conftest import Evaluate
from tests.conftest import MakePackage


def test_the_implicit_reward(evaluate: Evaluate, model: Path, other: Path) -> None:
    done = evaluate(f"--model {model} --ref_model {other} --beta 0.3 --batch_tokens 90", data=ROWS)
    new, old = by_hand(load(model), torch.sum), by_hand(load(other), torch.sum)
    held(done, "model", [[0.3 * (a - b) for a, b in zip(*pair, strict=True)] for pair in zip(new, old, strict=True)])
    line = done.line("model")
    assert line["reference"] == str(other)
    assert line["how"] == "implicit reward, 0.3 (log p - log p of the reference)"
    assert f"reference: {other}" in done.out


def test_the_implicit_reward_a_token(evaluate: Evaluate, model: Path, other: Path) -> None:
    done = evaluate(f"--model {model} --ref_model {other} --scorer implicit_avg", data=ROWS)
    new, old = by_hand(load(model), torch.mean), by_hand(load(other), torch.mean)
    held(done, "model", [[0.1 * (a - b) for a, b in zip(*pair, strict=True)] for pair in zip(new, old, strict=True)])


@pytest.mark.parametrize(
    ("scorer", "reduce"),
    [
        ("logp_sum", torch.sum),
        ("logp_avg", torch.mean),
        ("logp_norm", lambda some: -math.sqrt(float((some * some).sum()))),
    ],
)
def test_without_a_reference(evaluate: Evaluate, model: Path, scorer: str, reduce: Any) -> None:
    held(evaluate(f"--model {model} --scorer {scorer}", data=ROWS), "model", by_hand(load(model), reduce))


def test_a_model_of_which_nothing_is_known_is_scored_by_itself_and_says_so(evaluate: Evaluate, model: Path) -> None:
    done = evaluate(f"--model {model}", data=ROWS)
    held(done, "model", by_hand(load(model), torch.mean))
    assert "nothing says what it started from" in done.out
    assert done.line("model")["reference"] is None


def test_the_batch_does_not_matter(evaluate: Evaluate, model: Path) -> None:
    one = evaluate(f"--model {model} --batch_tokens 1", data=ROWS, out="one").items
    many = evaluate(f"--model {model}", data=ROWS, out="many").items
    for a, b in zip(one, many, strict=True):
        assert a["scores"]["model"] == pytest.approx(b["scores"]["model"], abs=1e-5)


def test_a_model_beside_itself_only_ties(evaluate: Evaluate, model: Path) -> None:
    done = evaluate(f"--model {model} --ref_model {model}", data=ROWS)
    line = done.line("model")
    assert (line["ties"], done.value("model")) == (30, 0.5)
    assert "model decides nothing in subset s1: all 10 preferences are ties" in done.out


def test_lists_count_every_two_of_different_score(evaluate: Evaluate, model: Path) -> None:
    rows = tiny.rows("lists", 12)
    rows[3]["scores"] = [2] * len(rows[3]["scores"])  # prefers nothing
    done = evaluate(f"--model {model} --scorer logp_sum", data=rows)
    reader, values = load(model), []
    for number, row in enumerate(rows):
        scores = [float(logps(reader, row["prompt"], one).sum()) for one in row["completions"]]
        pairs = [
            float(scores[a] > scores[b])
            for a in range(len(scores))
            for b in range(len(scores))
            if row["scores"][a] > row["scores"][b]
        ]
        if number != 3:
            values.append(sum(pairs) / len(pairs))
    assert [item["row"] for item in done.items] == [number for number in range(12) if number != 3]
    assert [item["agreed"]["model"] for item in done.items] == pytest.approx(values)
    assert done.value("model") == pytest.approx(sum(values) / 11)
    assert "1 of 12 rows are left out: no completion scores above another" in done.out


def test_a_subset_whose_rows_all_prefer_nothing_is_named(evaluate: Evaluate, model: Path) -> None:
    rows = [{**row, "subset": "abc"[number % 3]} for number, row in enumerate(tiny.rows("pairs", 12))]
    for row in rows[2::3]:
        row["rejected"] = row["chosen"]
    done = evaluate(f"--model {model}", data=rows)
    assert {item["subset"] for item in done.items} == {"a", "b"}
    assert "4 of 12 rows dropped: chosen and rejected are the same" in done.out
    assert "subset c has no preference in 4 rows and is left out" in " ".join(done.out.split())


def test_ranks_are_scores_the_other_way_round(evaluate: Evaluate, model: Path) -> None:
    rows = tiny.rows("lists", 6)
    ranked = [{**row, "ranks": [10 - score for score in row["scores"]]} for row in rows]
    for row in ranked:
        del row["scores"]
    scored = evaluate(f"--model {model}", data=rows, out="scores").items
    found = evaluate(f"--model {model}", data=ranked, out="ranks").items
    assert [item["preferences"] for item in found] == [item["preferences"] for item in scored]
    ranked[2]["ranks"] = ["first", *ranked[2]["ranks"][1:]]
    done = evaluate(f"--model {model}", data=ranked, out="bad", status=2)
    assert "data.jsonl line 3: column 'ranks[0]' holds the string 'first'; it must be a finite number" in done.err


def test_labels_of_one_prompt_are_preferences(evaluate: Evaluate, model: Path) -> None:
    rows = [
        {"prompt": "w1", "completion": " w2", "label": True},
        {"prompt": "w5", "completion": " w2", "label": True},
        {"prompt": "w1", "completion": " w3 w4", "label": False},
        {"prompt": "w1", "completion": " w6", "label": False},
    ]
    done = evaluate(f"--model {model} --scorer logp_sum", data=rows)
    reader = load(model)
    good, *bad = (float(logps(reader, "w1", one).sum()) for one in (" w2", " w3 w4", " w6"))
    [item] = done.items
    assert item["rows"] == [0, 2, 3]
    assert item["preferences"] == [[0, 1], [0, 2]]
    assert item["agreed"]["model"] == sum(good > one for one in bad) / 2
    assert "1 of 2 prompts are left out: they have desirable completions or others, not both" in done.out


def test_conversations_go_through_the_template(evaluate: Evaluate, chatty: Path) -> None:
    texts = tiny.rows("pairs", 12)
    rows = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"].strip()}],
            "rejected": [{"role": "assistant", "content": row["rejected"].strip()}],
        }
        for row in texts
    ]
    done = evaluate(f"--model {chatty} --scorer logp_sum", data=rows)
    tokenizer, reader = AutoTokenizer.from_pretrained(chatty), load(chatty)
    assert tokenizer.chat_template == tiny.CHAT
    for item, row in zip(done.items, rows, strict=True):
        for found, side in zip(item["scores"]["chatty"], ("chosen", "rejected"), strict=True):
            prompt = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
            assert found == pytest.approx(float(logps(reader, prompt, row[side][0]["content"]).sum()), abs=2e-4)
    # RewardBench's own form is text, which is one turn of a conversation.
    again = evaluate(
        f"--model {chatty} --scorer logp_sum --chat",
        data=[{**row, "chosen": row["chosen"].strip(), "rejected": row["rejected"].strip()} for row in texts],
        out="again",
    )
    assert [item["scores"] for item in again.items] == [item["scores"] for item in done.items]


def test_what_does_not_fit_is_counted(evaluate: Evaluate, model: Path) -> None:
    long = {"prompt": "w1", "chosen": " w2" * 150, "rejected": " w3"}
    done = evaluate(f"--model {model}", data=[*ROWS[:4], {**long, "subset": "s0"}])
    assert done.line("model")["undecided"] == 1
    assert "model: no opinion on 1 of 5 preferences (1 longer than 128 tokens)" in done.out
    assert done.items[4]["agreed"]["model"] is None


def test_several_models_are_one_table(evaluate: Evaluate, model: Path, other: Path, mine: str) -> None:
    rows = [{"prompt": "w3", "chosen": " w1 w9", "rejected": f" w{2 + n}"} for n in range(20)]
    done = evaluate(f"--model {model},{other} --reward {mine}:truth --judge {mine}:place", data=rows)
    assert [line["name"] for line in done.body["table"]["lines"]] == ["model", "other", "truth", "place", "longer wins"]
    marks = {line["name"]: line["numbers"]["mean_over_all"]["mark"] for line in done.body["table"]["lines"]}
    assert marks["truth"] == marks["place"] == "best"
    assert marks["longer wins"] == ""
    again = evaluate(f"--model {model} --model {other}", data=rows, out="again")
    assert [item["scores"]["other"] for item in again.items] == [item["scores"]["other"] for item in done.items]


SOURCE = """
from xpo import DataError, hookimpl


def ranked(spec, kind, split):
    if kind != "lists" or split != "test":
        raise DataError(f"ranked has lists and a split 'test', no {kind} of {split}")
    return [{"prompt": "w1", "completions": [" w2", " w3 w4"], "scores": [0, 1]}]


@hookimpl
def xpo_datasets():
    return {"ranked": ranked}
"""


def test_a_data_set_of_a_plugin_is_asked_for_what_it_has(evaluate: Evaluate, package: MakePackage, mine: str) -> None:
    package("ranked", {"ranked.py": SOURCE}, {"ranked": "ranked"})
    done = evaluate(f"--reward {mine}:length", data="ranked:x")
    assert (done.body["data"]["kind"], done.value("length")) == ("lists", 1.0)
    done = evaluate(f"--reward {mine}:length --dataset_split train", data="ranked:x", out="none", status=2)
    assert "ranked has lists and a split 'test', no labels of train" in done.err


def test_four_bits_and_a_config_file(evaluate: Evaluate, model: Path, other: Path, tmp_path: Path) -> None:
    path = tmp_path / "eval.yaml"
    path.write_text(f"model: [{model}, {other}]\nscorer: logp_sum\nload_in_4bit: true\nuse_cpu: true\n")
    done = evaluate(f"--config {path}", data=ROWS)
    exact = by_hand(load(model), torch.sum)
    found = [item["scores"]["model"] for item in done.items]
    off = [abs(a - b) for one, two in zip(found, exact, strict=True) for a, b in zip(one, two, strict=True)]
    assert 0.05 < sum(off) / len(off) < 5  # other weights, and about the same ones; scores are about 30 apart
    assert done.line("other")["counts"] == {"s0": 10, "s1": 10, "s2": 10}
