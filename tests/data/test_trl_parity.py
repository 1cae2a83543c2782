"""On rows that need no trimming the token ids are those of TRL's own DPO and KTO trainers."""

import json

import datasets
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from xpo.data.prepare import prepare
from xpo.data.sources import Rows, read

LONG = 100_000
ROWS = 60


def _trl(trainer_class, config_class, model, rows, tmp_path, **options):
    columns = [name for name in ("prompt", "chosen", "rejected", "completion", "label") if name in rows[0]]
    trainer = trainer_class(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=config_class(str(tmp_path), use_cpu=True, max_length=LONG, report_to="none", disable_tqdm=True, **options),
        train_dataset=datasets.Dataset.from_list([{name: row[name] for name in columns} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(model),
    )
    return trainer.train_dataset


def _rows(shared, name):
    return [dict(row) for row in read(str(shared / "data" / f"{name}.jsonl.gz")).rows[:ROWS]]


@pytest.mark.parametrize(
    ("data", "model"),
    [
        ("pairs/blimp", "stories260K"),
        ("pairs/truthfulqa", "stories260K"),
        ("pairs/hh_harmless", "stories260K-chat"),
        ("pairs/dpo_mix_demo", "stories260K-chat"),
    ],
)
def test_pairs_as_trl_tokenises_them(shared, tmp_path, data, model):
    rows = _rows(shared, data)
    path = str(shared / "models" / model)
    theirs = _trl(DPOTrainer, DPOConfig, path, rows, tmp_path)
    ours = prepare(Rows.of(rows), "pairs", AutoTokenizer.from_pretrained(path), max_length=LONG)
    assert len(ours.groups) == len(theirs) == len(rows)
    for group, row in zip(ours.groups, theirs, strict=True):
        assert group.prompt_ids == row["prompt_ids"]
        assert [completion.ids for completion in group.completions] == [row["chosen_ids"], row["rejected_ids"]]


@pytest.mark.parametrize(("data", "model"), [("blimp", "stories260K"), ("hh_harmless", "stories260K-chat")])
def test_implicit_prompts_as_trl_takes_them(shared, tmp_path, data, model):
    rows = [
        {"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]}
        for row in _rows(shared, f"pairs/{data}")
    ]
    path = str(shared / "models" / model)
    theirs = _trl(DPOTrainer, DPOConfig, path, rows, tmp_path)
    ours = prepare(Rows.of(rows), "pairs", AutoTokenizer.from_pretrained(path), max_length=LONG)
    for group, row in zip(ours.groups, theirs, strict=True):
        assert group.prompt_ids == row["prompt_ids"]
        assert [completion.ids for completion in group.completions] == [row["chosen_ids"], row["rejected_ids"]]


@pytest.mark.parametrize(
    ("data", "model"), [("labels/truthfulqa", "stories260K"), ("labels/kto_mix_demo", "stories260K-chat")]
)
def test_labels_as_trl_tokenises_them(shared, tmp_path, data, model):
    rows = _rows(shared, data)
    path = str(shared / "models" / model)
    theirs = _trl(KTOTrainer, KTOConfig, path, rows, tmp_path, per_device_train_batch_size=4)
    ours = prepare(Rows.of(rows), "labels", AutoTokenizer.from_pretrained(path), max_length=LONG)
    assert len(ours.groups) == len(theirs) == len(rows)
    for group, row in zip(ours.groups, theirs, strict=True):
        assert group.prompt_ids == row["prompt_ids"]
        assert group.completions[0].ids == row["completion_ids"]
        assert group.completions[0].label == row["label"]


def test_the_shared_data_comes_through(shared):
    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "stories260K")
    for name, want, options in (
        ("lists/tofu_facts", "lists", {}),
        ("lists/truthfulqa", "pairs", {"pairing": "all"}),
        ("forget/tofu", "forget", {"forget_column": "split_05"}),
    ):
        ready = prepare(read(str(shared / "data" / f"{name}.jsonl.gz")), want, tokenizer, max_length=512, **options)
        assert ready.groups
        assert json.dumps(ready.lines())
