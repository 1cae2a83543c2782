"""``xpo.train()``: the same run from Python, with objects in place of names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, EarlyStoppingCallback, TrainerCallback

import xpo
from tests import tiny

PAIRS = tiny.rows("pairs", 12)
SHORT: dict[str, Any] = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "eval_prompts": 0,
    "learning_rate": 1e-3,
    "use_cpu": True,
    "save_strategy": "no",
    "report_to": "none",
    "logging_steps": 1,
    "disable_tqdm": True,
}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=torch.arange(9)[None]).logits
    return found


def test_objects_train_like_names(tmp_path: Path) -> None:
    """The model object is trained itself, and saved as it then is."""
    model = tiny.model()
    start = logits(model)
    record = xpo.train(
        "dpo", model, PAIRS, tokenizer=tiny.tokenizer(), beta=0.2, output_dir=tmp_path / "objects", **SHORT
    )
    assert isinstance(record, xpo.RunRecord)
    assert record.algorithm_settings["beta"] == 0.2
    assert record == xpo.RunRecord.load(tmp_path / "objects")
    assert not torch.equal(logits(model), start)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "objects")
    assert torch.equal(logits(saved), logits(model))

    folder = tiny.saved(tmp_path / "model")
    named = xpo.train("dpo", str(folder), Dataset.from_list(PAIRS), beta=0.2, output_dir=tmp_path / "named", **SHORT)
    assert named.metrics == record.metrics
    assert named.data["fingerprint"] == record.data["fingerprint"]


def test_an_object_can_get_adapters(tmp_path: Path) -> None:
    model = tiny.model()
    adapters: dict[str, Any] = {"use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear"}
    settings = {**SHORT, "learning_rate": 1e-2}
    record = xpo.train("simpo", model, PAIRS, tokenizer=tiny.tokenizer(), output_dir=tmp_path, **adapters, **settings)
    assert record.model["adapter"] == "new"
    reloaded = PeftModel.from_pretrained(tiny.model(), tmp_path)
    assert torch.allclose(logits(reloaded), logits(model), atol=1e-6)
    assert not torch.allclose(logits(reloaded), logits(tiny.model()), atol=1e-4)


def test_callbacks_are_called(tmp_path: Path) -> None:
    """One that counts steps, and one that ends the run before its time."""

    class Count(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
        steps = 0

        def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
            self.steps += 1

    count = Count()
    record = xpo.train(
        "dpo", tiny.model(), PAIRS, callbacks=[count, EarlyStoppingCallback(1)], tokenizer=tiny.tokenizer(),
        eval_dataset=tiny.rows("pairs", 6, seed=3), eval_steps=1, load_best_model_at_end=True, output_dir=tmp_path,
        **{**SHORT, "max_steps": 9, "learning_rate": 0.0, "save_strategy": "steps", "save_steps": 1},
    )  # fmt: skip
    assert count.steps == record.cost.steps == 2  # a loss that stays as it is gets no better


def test_one_module_may_be_named(tmp_path: Path) -> None:
    xpo.train(
        "simpo", tiny.model(), PAIRS, tokenizer=tiny.tokenizer(), use_peft=True, lora_target_modules="q_proj",
        output_dir=tmp_path, **SHORT,
    )  # fmt: skip
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["target_modules"] == ["q_proj"]
    assert saved["lora_dropout"] == 0  # as it was


def test_dropout_of_adapters_is_honoured(tmp_path: Path) -> None:
    """Nearly all of it: what is learned differs."""
    adapters: dict[str, Any] = {"use_peft": True, "lora_target_modules": "all-linear", "disable_dropout": False}
    learned = []
    for share in (0.0, 0.9):
        record = xpo.train(
            "simpo", tiny.model(), PAIRS, tokenizer=tiny.tokenizer(), lora_dropout=share,
            output_dir=tmp_path / str(share), **adapters, **SHORT,
        )  # fmt: skip
        learned.append(record.metrics["loss"])
        assert json.loads((tmp_path / str(share) / "adapter_config.json").read_text())["lora_dropout"] == share
    assert learned[0] != learned[1]


def test_the_tokenizer_of_a_model_is_beside_it(tmp_path: Path) -> None:
    folder = tiny.saved(tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    record = xpo.train("dpo", loaded, PAIRS, output_dir=tmp_path / "loaded", **SHORT)
    given = AutoModelForCausalLM.from_pretrained(folder)
    same = xpo.train("dpo", given, PAIRS, tokenizer=tiny.tokenizer(), output_dir=tmp_path / "given", **SHORT)
    assert record.data["fingerprint"] == same.data["fingerprint"]
    assert record.metrics == same.metrics
    wrapped = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), LoraConfig(r=2, task_type="CAUSAL_LM"))
    adapted = xpo.train("dpo", wrapped, PAIRS, output_dir=tmp_path / "adapted", **SHORT)
    assert adapted.data["fingerprint"] == same.data["fingerprint"]


def test_a_model_from_nowhere_needs_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(xpo.SettingError, match="tokenizer= is missing: the model is passed as an object"):
        xpo.train("dpo", tiny.model(), PAIRS, output_dir=tmp_path / "out", **SHORT)
    assert not (tmp_path / "out").exists()


def test_a_dataset_dict_brings_its_held_out_rows(tmp_path: Path) -> None:
    data = DatasetDict({"train": Dataset.from_list(PAIRS[:8]), "test": Dataset.from_list(PAIRS[8:])})
    record = xpo.train(
        "dpo", tiny.model(), data, tokenizer=tiny.tokenizer(), eval_strategy="steps", eval_steps=2, output_dir=tmp_path,
        **SHORT,
    )  # fmt: skip
    assert record.data["held_out"] == 4
    assert record.metrics["eval_loss"] is not None


def test_a_reward_may_be_a_function(tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []

    def tag(completions: Sequence[str], prompts: Sequence[str], source: Sequence[str], **_: Any) -> list[float]:
        seen.extend(zip(prompts, source, completions, strict=True))
        return [float(len(text.split())) for text in completions]

    rows = [{"prompt": row["prompt"], "source": f"s{number}"} for number, row in enumerate(PAIRS)]
    record = xpo.train(
        "rloo", tiny.model(), rows, tokenizer=tiny.tokenizer(), reward=tag, max_completion_length=5,
        output_dir=tmp_path, **SHORT,
    )  # fmt: skip
    assert record.metrics["reward"] is not None
    sources = {row["prompt"]: row["source"] for row in rows}
    assert seen
    assert all(sources[prompt] == source for prompt, source, _ in seen)
    assert record.settings["objects"]["reward"] == ["test_a_reward_may_be_a_function.<locals>.tag"]


def test_a_reference_may_be_a_model(tmp_path: Path) -> None:
    record = xpo.train(
        "dpo", tiny.model(), PAIRS, tokenizer=tiny.tokenizer(), reference_model=tiny.model(seed=1), output_dir=tmp_path,
        **SHORT,
    )  # fmt: skip
    assert record.reference == "given model"
    assert record.metrics["rewards/margins"] != 0


def test_the_testbed_is_the_default(tmp_path: Path) -> None:
    record = xpo.train(algo="simpo", max_steps=1, eval_prompts=4, output_dir=tmp_path, use_cpu=True)
    assert record.data["embedded"] is True
    assert record.model["embedded"] is True
    assert {row.name for row in record.comparison} >= {"mean reward", "win rate against the start"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lerning_rate": 1}, "lerning_rate= is not a setting of xpo train. Did you mean 'learning_rate'"),
        ({"gamma": 1}, "; dpo has beta, label_smoothing"),
        ({"peft_config": object()}, "adapters are made by settings: use_peft=True, lora_r=16"),
        ({"beta": "strong"}, "beta= takes a number, not 'strong'"),
        ({"dataset": []}, "holds no rows"),
        ({"dataset": [3]}, "data row 1 is a int; every row must be a dict by column"),
        ({"dataset": [{"prompt": "w1", "chosen": "w2", "rejected": None}]}, "column 'rejected' holds null"),
    ],
)
def test_mistakes_are_named_as_they_were_written(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    chosen: dict[str, Any] = {"model": tiny.model(), "dataset": PAIRS, "tokenizer": tiny.tokenizer(), **settings}
    with pytest.raises(xpo.XpoError) as error:
        xpo.train("dpo", output_dir=tmp_path / "out", **{**SHORT, **chosen})
    assert message in str(error.value)
    assert not (tmp_path / "out").exists()


def test_an_unknown_method_is_named(tmp_path: Path) -> None:
    with pytest.raises(xpo.XpoError, match=r"there is no algorithm 'simpoo'\. Did you mean 'simpo'"):
        xpo.train("simpoo", output_dir=tmp_path / "out")
