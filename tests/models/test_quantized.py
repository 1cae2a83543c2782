"""4-bit weights with adapters, for real, on the CPU: NF4 base, LoRA on it, saved and loaded again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel

import xpo
from tests import tiny
from xpo import Batch, SettingError
from xpo.models.load import disable_dropout, load_policy, parameter_counts
from xpo.models.reference import make_reference
from xpo.models.scoring import score
from xpo.train.settings import ModelSettings

pytest.importorskip("bitsandbytes")

QLORA = {"load_in_4bit": True, "use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear"}


def logps(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return score(model, batch).logps


def four_bit(name: Path) -> PeftModel:
    return load_policy(ModelSettings(model_name_or_path=str(name), load_in_4bit=True), training=False).model


def test_qlora_trains_saves_and_loads_again(base: Path, tmp_path: Path) -> None:
    batch = Batch.of(tiny.groups("pairs", 4))
    record = xpo.train(
        "dpo",
        str(base),
        tiny.rows("pairs", 12),
        output_dir=str(tmp_path / "o"),
        use_cpu=True,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        warmup_steps=0,
        max_steps=3,
        logging_steps=1,
        save_strategy="no",
        **QLORA,
    )
    assert record.model["quantization"] == "4-bit"
    assert record.model["adapter"] == "new"
    assert 0 < record.model["trainable"] < record.model["parameters"]
    assert record.reference == "the same model with adapters off"
    history = [json.loads(line) for line in (tmp_path / "o" / "history.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert all(map(math.isfinite, losses))
    assert losses[1:] != pytest.approx([math.log(2)] * 2, abs=1e-4)

    start, trained = four_bit(base), four_bit(tmp_path / "o")
    types = {type(module).__name__ for module in trained.modules()}
    assert "Linear4bit" in types
    quants = {module.weight.quant_type for module in start.modules() if type(module).__name__ == "Linear4bit"}
    assert quants == {"nf4"}
    assert float((logps(trained, batch) - logps(start, batch)).abs().max()) > 0.05
    assert torch.equal(logps(four_bit(tmp_path / "o"), batch), logps(trained, batch))


def test_what_is_saved_says_the_same_on_the_4_bit_base(base: Path, tmp_path: Path) -> None:
    batch = Batch.of(tiny.groups("pairs", 4))
    config = ModelSettings(model_name_or_path=str(base), **QLORA)
    policy = load_policy(config)
    reference = make_reference(policy, config)
    assert torch.equal(reference.score(batch).logps, logps(four_bit(base), batch))
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.05
    expected = logps(policy.model, batch)
    assert torch.equal(reference.score(batch).logps, logps(four_bit(base), batch))
    policy.model.save_pretrained(tmp_path)
    assert torch.equal(logps(four_bit(tmp_path), batch), expected)


def test_an_evaluation_in_between_leaves_loss_and_gradient_as_they_were(base: Path) -> None:
    """Some CPUs have kernels for inference that pass no gradient; weights laid out for them cannot be trained on."""
    batch = Batch.of(tiny.groups("pairs", 4))
    policy = load_policy(ModelSettings(model_name_or_path=str(base), **QLORA))
    disable_dropout(policy.model)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.05

    def gradient() -> tuple[float, list[torch.Tensor]]:
        policy.model.train().zero_grad()
        loss = score(policy.model, batch).logps.sum()
        loss.backward()
        return loss.item(), [parameter.grad for parameter in policy.model.parameters() if parameter.grad is not None]

    before, there = gradient()
    evaluated = logps(policy.model, batch)
    after, here = gradient()
    assert float(evaluated.sum()) == pytest.approx(before, rel=1e-5)
    assert after == before
    assert all(torch.equal(a, b) for a, b in zip(there, here, strict=True))
    assert float(max(value.abs().max() for value in here)) > 0.1


def test_packed_weights_count_as_what_they_unpack_to(base: Path) -> None:
    plain = load_policy(ModelSettings(model_name_or_path=str(base)))
    packed = load_policy(ModelSettings(model_name_or_path=str(base), load_in_4bit=True), training=False)
    assert parameter_counts(packed.model)[0] == parameter_counts(plain.model)[0]


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_quantised_weights_alone_are_refused(base: Path, bits: str) -> None:
    with pytest.raises(SettingError, match="--use_peft"):
        load_policy(ModelSettings(model_name_or_path=str(base), **{bits: True}))
    with pytest.raises(SettingError, match="--use_peft"):
        xpo.train("dpo", str(base), tiny.rows("pairs", 4), **{bits: True})
