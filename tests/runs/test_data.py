"""Data as users have it: every kind of file, every form of row, and what is done when the kind does not fit."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from datasets import Dataset, DatasetDict

from tests import tiny
from tests.runs.conftest import Done, Train
from xpo.train.record import RunRecord

Rows = list[dict[str, Any]]
PAIRS = tiny.rows("pairs", 12)
LABELS = tiny.rows("labels", 12)
LISTS: Rows = [
    {"prompt": row["prompt"], "completions": [row["chosen"], " w1 w2", row["rejected"]], "scores": [1.0, 0.5, 0.0]}
    for row in PAIRS
]
TALK: Rows = [
    {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        **{role: [{"role": "assistant", "content": row[role].strip()}] for role in ("chosen", "rejected")},
    }
    for row in PAIRS
]
JUDGE = """
def short(completions, prompts, **columns):
    return [-float(len(text.split())) for text in completions]
"""


def lines(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# Files


def to_jsonl(path: Path) -> Path:
    (path / "rows.jsonl").write_text(lines(PAIRS))
    return path / "rows.jsonl"


def to_gzip(path: Path) -> Path:
    (path / "rows.jsonl.gz").write_bytes(gzip.compress(lines(PAIRS).encode()))
    return path / "rows.jsonl.gz"


def to_json(path: Path) -> Path:
    (path / "rows.json").write_text(json.dumps(PAIRS))
    return path / "rows.json"


def to_csv(path: Path) -> Path:
    with (path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(PAIRS[0]))
        writer.writeheader()
        writer.writerows(PAIRS)
    return path / "rows.csv"


def to_parquet(path: Path) -> Path:
    Dataset.from_list(PAIRS).to_parquet(path / "rows.parquet")
    return path / "rows.parquet"


def to_folder(path: Path) -> Path:
    (path / "shards").mkdir()
    for number, rows in enumerate((PAIRS[:5], PAIRS[5:])):
        (path / "shards" / f"train-0000{number}-of-00002.jsonl").write_text(lines(rows))
    return path / "shards"


def to_saved(path: Path) -> Path:
    Dataset.from_list(PAIRS).save_to_disk(path / "saved")
    return path / "saved"


@pytest.fixture(scope="module")
def straight() -> list[RunRecord]:
    return []


@pytest.mark.parametrize("store", [to_jsonl, to_gzip, to_json, to_csv, to_parquet, to_folder, to_saved])
def test_every_kind_of_file_gives_the_same_run(
    trained: Train, tmp_path: Path, straight: list[RunRecord], store: Callable[[Path], Path]
) -> None:
    record = trained("--algo dpo", data=store(tmp_path)).record
    straight.append(record)
    assert record.metrics == straight[0].metrics
    assert record.data["fingerprint"] == straight[0].data["fingerprint"]
    assert record.data["rows"] == len(PAIRS)


def test_a_folder_brings_its_held_out_rows(trained: Train, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "train.jsonl").write_text(lines(PAIRS[:8]))
    (folder / "test.jsonl").write_text(lines(PAIRS[8:]))
    done = trained("--algo dpo --eval_strategy steps --eval_steps 1", data=folder)
    assert (done.record.data["groups"], done.record.data["held_out"]) == (8, 4)
    assert evaluations(done) == [1, 2]


def test_a_saved_dict_brings_its_held_out_rows(trained: Train, tmp_path: Path) -> None:
    data = DatasetDict({"prefs": Dataset.from_list(PAIRS[:8]), "check": Dataset.from_list(PAIRS[8:])})
    data.save_to_disk(tmp_path / "saved")
    line = "--algo dpo --dataset_train_split prefs --dataset_test_split check"
    record = trained(line, data=tmp_path / "saved").record
    assert (record.data["groups"], record.data["held_out"]) == (8, 4)
    assert record.data["origin"] == "saved[prefs]"


# Forms


def test_a_prompt_may_be_the_common_beginning(trained: Train) -> None:
    # A first word of their own each, so that the text diverges between words.
    rows = [{**row, "chosen": " w1" + row["chosen"], "rejected": " w20" + row["rejected"]} for row in PAIRS]
    rows = [{**row, "chosen": row["chosen"].replace(" w1", " w3", 1)} for row in rows]
    implicit = [{role: row["prompt"] + row[role] for role in ("chosen", "rejected")} for row in rows]
    spelt = trained("--algo dpo", data=[{**row, "rejected": row["rejected"]} for row in rows], out="spelt").record
    found = trained("--algo dpo", data=implicit, out="found").record
    assert found.data["groups"] == spelt.data["groups"] == len(PAIRS)
    # Both begin with "w", where the texts diverge within a word: the completion starts early, and xpo says so.
    assert "12 of 12 rows start the completion early" in "\n".join(found.data["lines"])
    assert found.metrics == spelt.metrics


def test_a_prompt_of_a_conversation_may_be_implicit(trained: Train, chat_model: Path) -> None:
    implicit = [{role: row["prompt"] + row[role] for role in ("chosen", "rejected")} for row in TALK]
    spelt = trained("--algo dpo", data=TALK, base=chat_model, out="spelt").record
    found = trained("--algo dpo", data=implicit, base=chat_model, out="found").record
    assert found.metrics == spelt.metrics
    assert not [line for line in spelt.data["lines"] if "start the completion early" in line]


def test_conversations_are_rendered_by_the_template(trained: Train, chat_model: Path, tmp_path: Path) -> None:
    talk = trained("--algo dpo", data=TALK, base=chat_model, out="talk").record
    # The same as text, with what the template of these tests puts around the messages.
    text = [
        {"prompt": f"w1 {row['prompt']} w2 ", "chosen": row["chosen"].strip(), "rejected": row["rejected"].strip()}
        for row in PAIRS
    ]
    plain = trained("--algo dpo", data=text, base=chat_model, out="plain").record
    assert talk.metrics == plain.metrics
    from_values = [
        {
            "prompt": [{"from": "human", "value": row["prompt"][0]["content"]}],
            **{role: [{"from": "gpt", "value": row[role][0]["content"]}] for role in ("chosen", "rejected")},
        }
        for row in TALK
    ]
    assert trained("--algo dpo", data=from_values, base=chat_model, out="values").record.metrics == talk.metrics


def test_a_template_can_be_given(trained: Train, chat_model: Path, model: Path) -> None:
    own = trained("--algo dpo", data=TALK, base=chat_model, out="own").record
    line = f"--algo dpo --chat_template_path {chat_model / 'chat_template.jinja'}"
    given = trained(line, data=TALK, base=model, out="given")
    assert given.record.metrics == own.metrics
    assert (given.folder / "chat_template.jinja").exists()


def test_conversations_in_csv_are_no_text(trained: Train, chat_model: Path, tmp_path: Path) -> None:
    pandas.DataFrame(TALK).to_csv(tmp_path / "rows.csv", index=False)  # which writes what Python prints
    found = trained("--algo dpo", data=tmp_path / "rows.csv", base=chat_model, out="csv")
    assert found.record.metrics == trained("--algo dpo", data=TALK, base=chat_model, out="jsonl").record.metrics
    assert "Column 'prompt' holds messages written as text; they are read as messages." in found.said


# Kinds


def test_pairs_become_labels(trained: Train) -> None:
    done = trained("--algo kto", data=PAIRS)
    assert "Each pair became two labelled completions: chosen is desirable, rejected is not." in done.err.splitlines()
    assert done.record.data["groups"] == 2 * len(PAIRS)


@pytest.mark.parametrize(
    ("how", "said", "pairs"), [("", "one pair: its best", 1), ("--lists_to_pairs all", "all its pairs", 3)]
)
def test_lists_become_pairs(trained: Train, how: str, said: str, pairs: int) -> None:
    tied = {**LISTS[0], "prompt": "w9", "scores": [1.0, 1.0, 1.0]}
    done = trained(f"--algo simpo {how}", data=[*LISTS, tied], out="lists")
    assert f"Each list became {said}" in done.err
    assert "1 of 13 rows dropped: no completion scores above another" in done.err
    if pairs == 1:
        assert done.record.metrics == trained("--algo simpo", data=PAIRS, out="pairs").record.metrics
    else:
        # The two others of each list take part: the loss of the first step is another, over three pairs each.
        best = trained("--algo simpo", data=LISTS, out="best")
        assert done.history[0]["loss"] != best.history[0]["loss"]
        assert done.history[0]["rewards/accuracies"] * 12 == pytest.approx(
            round(done.history[0]["rewards/accuracies"] * 12)
        )


@pytest.mark.parametrize(
    ("algo", "rows", "have", "want"),
    [
        ("dpo", LABELS, "labels", "pairs"),
        ("kto", LISTS, "lists", "labels"),
        ("kto", [{"prompt": "w1"}] * 4, "rollouts", "labels"),
        ("simpo", [{"prompt": "w1"}] * 4, "rollouts", "pairs"),
    ],
)
def test_what_cannot_become_the_kind_is_refused(train: Train, algo: str, rows: Rows, have: str, want: str) -> None:
    done = train(f"--algo {algo}", data=rows)
    assert done.status == 2
    assert f"data of the kind '{have}', and '{want}' cannot be made from it" in done.err
    assert not done.folder.exists()


def test_labels_of_conversations(trained: Train, chat_model: Path) -> None:
    rows = [{**row, "label": str(number % 2 == 0)} for number, row in enumerate(TALK)]
    spelt = [{"prompt": row["prompt"], "completion": row["chosen"], "label": row["label"] == "True"} for row in rows]
    whole = [{"messages": row["prompt"] + row["chosen"], "label": row["label"]} for row in rows]
    done = trained("--algo kto", data=whole, base=chat_model, out="whole")
    assert done.record.metrics == trained("--algo kto", data=spelt, base=chat_model, out="spelt").record.metrics
    assert "Of each conversation the last message of the assistant is the completion." in done.said


def test_labels_may_be_of_one_class(trained: Train) -> None:
    record = trained("--algo kto", data=[{**row, "label": True} for row in LABELS]).record
    assert record.metrics["loss"] is not None


def test_equal_pairs_are_counted_and_dropped(trained: Train) -> None:
    equal = [{**row, "rejected": row["chosen"]} for row in PAIRS[:3]]
    done = trained("--algo dpo", data=[*equal, *PAIRS[3:]])
    assert "3 of 12 rows dropped: chosen and rejected are the same" in done.said
    assert done.record.data["groups"] == 9


def test_long_prompts_are_shortened_and_long_completions_dropped(trained: Train) -> None:
    rows = [*PAIRS[:4], {**PAIRS[4], "prompt": "w5 " * 40}, {**PAIRS[5], "chosen": " w6" * 40}]
    done = trained("--algo dpo --max_length 20", data=rows)
    assert "1 of 6 rows shortened: the prompt lost tokens on the left to fit --max_length 20" in done.said
    assert "1 of 6 rows dropped: the completion alone is longer than --max_length 20 allows" in done.said


def test_one_row_and_a_large_batch(trained: Train) -> None:
    done = trained("--algo dpo --per_device_train_batch_size 8", data=PAIRS[:1])
    assert done.record.cost.steps == 2


# Rewards


def rewarded(trained: Train, *more: str | Path, **options: Any) -> Done:
    return trained("--algo rloo --max_completion_length 5 --reward", *more, data=PAIRS, **options)


def test_rewards_of_a_file_a_module_and_both(trained: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "judges_of_length.py").write_text(JUDGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    file = rewarded(trained, f"{tmp_path / 'judges_of_length.py'}:short", out="file")
    assert file.record.data["groups"] == len(PAIRS)
    module = rewarded(trained, "judges_of_length:short", out="module")
    assert module.record.metrics == file.record.metrics
    both = ["judges_of_length:short", "judges_of_length:short", "--reward_weights", "3", "-2"]
    assert rewarded(trained, *both, out="both").record.metrics["reward"] == file.record.metrics["reward"]


def test_prompts_are_taken_out_of_pairs(trained: Train, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE)
    implicit = [{role: row["prompt"] + row[role] for role in ("chosen", "rejected")} for row in (*PAIRS, PAIRS[0])]
    line = f"--algo rloo --max_completion_length 5 --reward {tmp_path / 'judge.py'}:short"
    done = trained(line, data=implicit)
    assert "Only the prompts of the data are used, each once." in done.said
    assert "1 of 13 rows merged: an earlier row has the same prompt" in done.said
    assert done.record.data["groups"] == len(PAIRS)


def test_a_reward_may_be_a_coroutine(trained: Train, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE + JUDGE.replace("def short", "async def slow"))
    told = rewarded(trained, f"{tmp_path / 'judge.py'}:slow", out="slow").record
    assert (
        told.metrics["reward"]
        == rewarded(trained, f"{tmp_path / 'judge.py'}:short", out="short").record.metrics["reward"]
    )


def test_a_reward_model(trained: Train, tmp_path: Path) -> None:
    tiny.classifier().save_pretrained(tmp_path / "judge")
    tiny.tokenizer().save_pretrained(tmp_path / "judge")
    done = rewarded(trained, tmp_path / "judge")
    assert done.record.metrics["reward/std"] != 0


def test_held_out_prompts_are_sampled_and_judged(trained: Train, tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text(JUDGE)
    more = ["--eval_size", "4", "--eval_prompts", "3", "--eval_steps", "1"]
    done = rewarded(trained, f"{tmp_path / 'judge.py'}:short", *more)
    rows = {row.name: row for row in done.record.comparison}
    assert rows["mean reward"].after is not None
    # An end is a token and no word.
    words = (rows["mean length"].after or 0.0) - (rows["ended by itself"].after or 0.0)
    assert rows["mean reward"].after == pytest.approx(-words)
    assert evaluations(done) == [1, 2]
    assert len(done.record.samples) == 2


# Held-out rows


def evaluations(done: Done) -> list[int]:
    return [entry["step"] for entry in done.history if "eval_loss" in entry]


def test_rows_can_be_held_out(trained: Train) -> None:
    done = trained("--algo dpo --eval_size 0.25 --eval_strategy steps --eval_steps 1", data=PAIRS)
    assert (done.record.data["groups"], done.record.data["held_out"]) == (9, 3)
    assert evaluations(done) == [1, 2]
    assert sum(line.startswith("eval  step") for line in done.err.splitlines()) == 2
    assert done.record.metrics["eval_rewards/margins"] is not None


def test_another_source_can_be_evaluated_on(trained: Train, write: Callable[..., Path]) -> None:
    held = write(tiny.rows("pairs", 5, seed=1), "held.jsonl")
    done = trained("--algo dpo --eval_strategy epoch --max_steps 6", "--eval_dataset", held, data=PAIRS)
    assert done.record.data["held_out"] == 5
    assert evaluations(done) == [3, 6]
    # The whole source counts, however it is cut into batches.
    line = "--algo dpo --eval_strategy epoch --max_steps 6 --per_device_eval_batch_size 2"
    again = trained(line, "--eval_dataset", held, data=PAIRS, out="again")
    assert again.record.metrics["eval_loss"] == pytest.approx(done.record.metrics["eval_loss"], rel=1e-5)


def test_evaluation_without_held_out_rows_is_refused(train: Train) -> None:
    done = train("--algo dpo --eval_strategy steps", data=PAIRS)
    assert done.status == 2
    assert "pass --eval_dataset or --eval_size" in done.err
