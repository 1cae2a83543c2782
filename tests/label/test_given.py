"""Completions that are there already are judged, to the letter, and nothing is sampled."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.feedback.test_judge_http import Body, Service, chat, shows_first
from tests.label.conftest import Label

PAIRS = [
    {"prompt": "w1", "chosen": " w2  w3 w4", "rejected": " w5", "score_chosen": 3, "margin": 2.0, "topic": "a"},
    {"prompt": "w2", "chosen": " w2", "rejected": " w5 W6?  ", "score_chosen": 3, "margin": 2.0, "topic": "b"},
]
LISTS = [{"prompt": f"w{number}", "completions": [" w2 w3 w4", " w5", " w6 w7"]} for number in range(3)]


def test_pairs_are_judged_anew(label: Label, mine: str) -> None:
    done = label("--judge", f"{mine}:shorter", data=PAIRS)
    assert done.status == 0, done.err
    first, second = done.rows
    assert (first["chosen"], first["rejected"], first["samples"]) == (" w5", " w2  w3 w4", [1, 0])
    assert (second["chosen"], second["rejected"], second["samples"]) == (" w2", " w5 W6?  ", [0, 1])
    assert first["score_chosen"] == first["p_chosen"] == pytest.approx(3 / 4)
    assert first["score_rejected"] == pytest.approx(1 / 4)
    assert [row["topic"] for row in done.rows] == ["a", "b"]
    # What the data said of them before is about the other way round.
    assert not any("margin" in row for row in done.rows)
    assert all(row["model"] is None and row["temperature"] is None for row in done.rows)
    assert "the longer completion won in 0% of 2 questions; winners are 1.5 tokens shorter" in done.out


def test_a_judge_reads_what_was_said(label: Label, mine: str) -> None:
    """No tokenizer comes between: it would lose the double space and the word it does not know."""
    label("--judge", f"{mine}:shorter", data=PAIRS)
    asked = Path(mine).with_name("asked.txt").read_text().splitlines()
    assert asked == ["w1| w2  w3 w4| w5", "w2| w2| w5 W6?  "]


def test_a_tokenizer_only_counts(label: Label, mine: str, model: Path) -> None:
    done = label("--model", model, "--judge", f"{mine}:shorter", data=PAIRS)
    asked = Path(mine).with_name("asked.txt").read_text().splitlines()
    assert asked == ["w1| w2  w3 w4| w5", "w2| w2| w5 W6?  "]
    assert done.rows[1]["rejected"] == " w5 W6?  "
    assert "sampled" not in done.out


def test_a_prompt_that_both_begin_with(label: Label, mine: str) -> None:
    rows = [
        {
            "chosen": [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2 w3"}],
            "rejected": [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w4"}],
        }
    ]
    [row] = label("--judge", f"{mine}:shorter", data=rows).rows
    assert row["prompt"] == [{"role": "user", "content": "w1"}]
    assert row["chosen"] == [{"role": "assistant", "content": "w4"}]
    assert row["rejected"] == [{"role": "assistant", "content": "w2 w3"}]


def test_lists_need_no_scores(label: Label, mine: str) -> None:
    done = label("--to lists --reward", f"{mine}:length", data=[{**row, "scores": [9, 9, 9]} for row in LISTS])
    assert [row["scores"] for row in done.rows] == [[3.0, 1.0, 2.0]] * 3
    assert done.rows[0]["completions"] == LISTS[0]["completions"]
    again = label("--to lists --reward", f"{mine}:length", data=LISTS, out="again.jsonl")
    assert again.rows == done.rows
    assert done.rows[0]["rewards"] == [f"{mine}:length"]


def test_rewards_are_weighted(label: Label, mine: str) -> None:
    line = f"--to lists --reward {mine}:length {mine}:flat --reward_weights 2 -1"
    assert label(line, data=LISTS).rows[0]["scores"] == [5.0, 1.0, 3.0]


def test_lists_become_pairs_and_labels(label: Label, mine: str) -> None:
    pairs = label("--reward", f"{mine}:length", "--online_pairs", "all", data=LISTS[:1]).rows
    assert [row["samples"] for row in pairs] == [[0, 1], [0, 2], [2, 1]]
    labels = label("--reward", f"{mine}:length", "--to", "labels", data=LISTS[:1], out="labels.jsonl").rows
    assert [(row["completion"], row["label"]) for row in labels] == [
        (" w2 w3 w4", True),
        (" w5", False),
        (" w6 w7", False),
    ]


def test_random_pairs_follow_from_the_seed(label: Label, mine: str) -> None:
    rows = [
        {"prompt": f"w{number}", "completions": [f" {'w1 ' * count}w2" for count in range(6)]} for number in range(9)
    ]
    line = f"--reward {mine}:length --online_pairs random --seed"
    one, two, other = (
        [row["samples"] for row in label(f"{line} {seed}", data=rows, out=f"{name}.jsonl").rows]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == two != other


def test_one_completion_is_no_comparison(label: Label, mine: str) -> None:
    done = label("--reward", f"{mine}:length", data=[*LISTS, {"prompt": "w9", "completions": [" w1"]}])
    assert done.beside["outcome"]["nothing"] == {"too few completions": 1}
    assert len(done.rows) == 3


def test_two_that_read_alike_make_no_pair(label: Label, tmp_path: Path) -> None:
    """A judge that draws its verdicts may prefer a text to itself, by way of others."""
    (tmp_path / "fickle.py").write_text(
        "def fickle(prompts, completions, **columns):\n"
        "    return [0.9 if index % 2 else 0.2 for index, _ in enumerate(prompts)]\n"
    )
    rows = [{"prompt": "w1", "completions": [" w1", " w2", " w1"]}]
    done = label("--online_pairs", "all", "--judge", f"{tmp_path / 'fickle.py'}:fickle", data=rows)
    assert done.rows
    assert all(row["chosen"] != row["rejected"] for row in done.rows)


def test_a_model_may_judge(label: Label, mine: str, tmp_path: Path) -> None:
    """A reward model: Bradley-Terry between its own numbers."""
    import torch

    reward = tiny.classifier()
    reward.config.pad_token_id = tiny.PAD
    reward.save_pretrained(tmp_path / "reward")
    tiny.tokenizer().save_pretrained(tmp_path / "reward")
    done = label("--judge", tmp_path / "reward", data=PAIRS[:1])
    assert done.status == 0, done.err
    ids = [tiny.tokenizer()(f"w1{said}", return_tensors="pt")["input_ids"] for said in (" w2  w3 w4", " w5")]
    with torch.no_grad():
        first, second = (reward(one).logits[0, 0] for one in ids)
    expected = float(torch.sigmoid(abs(first - second)))
    assert done.rows[0]["p_chosen"] == pytest.approx(expected, rel=1e-5)
    assert done.rows[0]["samples"] == ([0, 1] if first > second else [1, 0])


def test_no_verdict_on_the_two_themselves(label: Label, tmp_path: Path) -> None:
    """The best and the worst are known by what a third was worth beside them; of the pair itself nothing is said."""
    (tmp_path / "shy.py").write_text(
        "def shy(prompts, completions, **columns):\n"
        "    known = {(' a', ' b'): 0.9, (' b', ' c'): 0.8}\n"
        "    return [known.get(pair) for pair in completions]\n"
    )
    done = label("--judge", f"{tmp_path / 'shy.py'}:shy", data=[{"prompt": "w1", "completions": [" a", " b", " c"]}])
    [row] = done.rows
    assert (row["chosen"], row["rejected"], row["p_chosen"]) == (" a", " c", None)
    assert (row["score_chosen"], row["score_rejected"]) == (pytest.approx(0.9), pytest.approx(0.2))
    assert "1 question had no verdict" in done.out


def test_a_server_is_asked_in_both_orders(label: Label, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """It likes ``w2`` and first places: 0.9 and 0.3 for the first, so that w2 is preferred with (0.9 + 0.7) / 2."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def act(body: Body) -> tuple[Any, ...]:
        first = 0.9 if shows_first(body, " w2  w3 w4") else 0.3
        return 200, chat("1", {"1": math.log(first), "2": math.log(1 - first)})

    service.act = act
    done = label("--judge openai:tiny --judge_url", service.url, data=PAIRS[:1])
    assert done.status == 0, done.err
    assert len(service.seen) == 2
    [row] = done.rows
    assert row["chosen"] == " w2  w3 w4"
    assert row["p_chosen"] == pytest.approx(0.8)
    assert "the judge was asked 1 question and took" in done.out
    assert "60 tokens read and 2 written" in done.out
    assert "the order of the two changed who wins in 0% of 1 question" in done.out
    assert service.url not in Path(f"{done.path}.label").read_text()


def test_a_judge_that_only_likes_a_place_has_no_winner(label: Label, service: Service) -> None:
    done = label("--judge openai:tiny --judge_url", service.url, data=PAIRS[:1])
    assert (done.status, done.rows) == (1, [])
    assert done.beside["outcome"]["nothing"] == {"tied": 1}
    assert "the order of the two changed who wins in 100% of 1 question" in done.out


def test_what_only_samples_have_is_refused(label: Label, mine: str) -> None:
    for line in ("--temperature 0.5", "--num_generations 3", "--max_completion_length 9", "--missing_eos_penalty 1"):
        done = label(f"--judge {mine}:shorter {line}", data=PAIRS)
        assert (done.status, done.path.exists()) == (2, False)
        assert f"{line.split()[0]} has no effect here: the rows of rows.jsonl hold their completions" in done.err


def test_a_policy_that_judges_must_be_there(label: Label) -> None:
    done = label("--judge self", data=PAIRS)
    assert (done.status, done.path.exists()) == (2, False)
    assert done.err == "xpo: --judge self is the model, and none is given; pass --model\n"


def test_the_policy_judges_what_is_given(label: Label, model: Path) -> None:
    """The tiny tokenizer has no tokens for the answers, and says so: it is the policy's that was asked."""
    done = label("--judge self --model", model, data=PAIRS)
    assert done.status == 2
    assert "no single tokens for the answers 1 and 2" in done.err
