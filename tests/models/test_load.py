"""Loading, adapters saved and loaded again, dropout, and messages for what cannot be loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import xpo
from tests import tiny
from xpo import Batch, ModelError, SettingError
from xpo.models.load import (
    adapt,
    disable_dropout,
    load_classifier,
    load_policy,
    load_tokenizer,
    parameter_counts,
)
from xpo.models.scoring import score
from xpo.train.settings import ModelSettings

TRAINING = {
    "use_cpu": True,
    "per_device_train_batch_size": 4,
    "max_steps": 3,
    "learning_rate": 1e-2,
    "warmup_steps": 0,
    "save_strategy": "no",
    "disable_tqdm": True,
}


@pytest.fixture(scope="module")
def batch() -> Batch:
    return Batch.of(tiny.groups("pairs", 4))


def logps(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return score(model, batch).logps


def test_full_weights_train_and_load_again(base: Path, tmp_path: Path, batch: Batch) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    start = logps(model, batch)
    record = xpo.train(
        "simpo", model, tiny.rows("pairs", 12), tokenizer=tiny.tokenizer(), output_dir=str(tmp_path / "o"), **TRAINING
    )
    trained = logps(model, batch)
    assert float((trained - start).abs().max()) > 0.05
    assert torch.equal(logps(AutoModelForCausalLM.from_pretrained(tmp_path / "o"), batch), trained)
    assert record.model["trainable"] == record.model["parameters"] == parameter_counts(model)[0]


def test_an_adapter_trains_and_loads_again_and_can_be_continued(base: Path, tmp_path: Path, batch: Batch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    common = {"dataset": tiny.rows("pairs", 12), "use_peft": True, **TRAINING}
    xpo.train("dpo", str(base), lora_r=4, lora_target_modules="all-linear", output_dir=str(first), **common)
    assert not (first / "model.safetensors").exists()

    def loaded(folder: Path) -> torch.Tensor:
        return logps(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder), batch)

    start = logps(AutoModelForCausalLM.from_pretrained(base), batch)
    once = loaded(first)
    assert float((once - start).abs().max()) > 0.05
    policy = load_policy(ModelSettings(model_name_or_path=str(first)), training=False)
    assert torch.equal(logps(policy.model, batch), once)

    record = xpo.train("dpo", str(first), output_dir=str(second), **common)
    assert record.reference == "frozen copy of the continued adapter"
    history = [json.loads(line) for line in (second / "history.jsonl").read_text().splitlines()]
    assert history[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert sorted(path.name for path in second.glob("**/adapter_model.safetensors")) == ["adapter_model.safetensors"]
    assert (second / "adapter_model.safetensors").is_file()  # not in a folder of the adapter's name
    assert float((loaded(second) - once).abs().max()) > 0.05


def test_what_training_saves_is_what_it_held(base: Path, tmp_path: Path, batch: Batch) -> None:
    policy = load_policy(ModelSettings(model_name_or_path=str(base), use_peft=True, lora_target_modules="all-linear"))
    xpo.train(
        "dpo",
        policy.model,
        tiny.rows("pairs", 12),
        tokenizer=tiny.tokenizer(),
        output_dir=str(tmp_path / "o"),
        **TRAINING,
    )
    reloaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "o")
    assert torch.equal(logps(reloaded, batch), logps(policy.model, batch))


def test_dropout_is_off_everywhere_and_the_policy_equals_itself(batch: Batch) -> None:
    model = tiny.model(attention_dropout=0.5)
    config = ModelSettings(use_peft=True, lora_dropout=0.5, lora_target_modules="all-linear")
    policy = adapt(model, config)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.1
    expected = logps(policy.model, batch)
    policy.model.train()
    noisy = score(policy.model, batch).logps.detach()
    assert not torch.allclose(noisy, expected, atol=1e-3)
    disable_dropout(policy.model)
    policy.model.train()
    assert torch.equal(score(policy.model, batch).logps.detach(), expected)


def test_functional_dropout_alone(batch: Batch) -> None:
    model = tiny.model(attention_dropout=0.5).train()
    assert not torch.allclose(score(model, batch).logps, score(model, batch).logps, atol=1e-3)
    disable_dropout(model)
    assert torch.equal(score(model, batch).logps, score(model, batch).logps)


def test_an_adapter_without_leave_to_train_it(adapter: Path) -> None:
    with pytest.raises(SettingError, match="--use_peft"):
        load_policy(ModelSettings(model_name_or_path=str(adapter)))


def test_modules_that_are_not_there(base: Path) -> None:
    with pytest.raises(SettingError, match="adapters cannot be added"):
        load_policy(ModelSettings(model_name_or_path=str(base), use_peft=True, lora_target_modules=["nothing"]))


@pytest.mark.parametrize("load", [load_policy, load_tokenizer])
def test_a_model_that_is_nowhere(tmp_path: Path, load: Callable[[ModelSettings], Any]) -> None:
    with pytest.raises(ModelError, match="neither a directory here nor a model that can be had from the hub"):
        load(ModelSettings(model_name_or_path="nobody/nothing"))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(ModelSettings(model_name_or_path=str(tmp_path)))
    with pytest.raises(SettingError, match="--model_name_or_path"):
        load(ModelSettings())


def test_a_reward_model_has_one_output(tmp_path: Path) -> None:
    from transformers import LlamaForSequenceClassification

    LlamaForSequenceClassification(tiny._config(tiny.SIZE, num_labels=3)).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="3 outputs"):
        load_classifier(str(tmp_path), ModelSettings())


def test_a_reward_model_is_no_policy(tmp_path: Path) -> None:
    from transformers import LlamaForSequenceClassification

    LlamaForSequenceClassification(tiny._config(tiny.SIZE, num_labels=1)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"is a reward model \(LlamaForSequenceClassification\)"):
        load_policy(ModelSettings(model_name_or_path=str(tmp_path)))


def test_another_chat_template(base: Path, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages[0]['content'] }}!")
    tokenizer = load_tokenizer(ModelSettings(model_name_or_path=str(base)), str(template))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "w1"}], tokenize=False) == "w1!"
