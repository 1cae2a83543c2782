"""The four references: each is the policy as it started, or the model given, and training never moves it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests import tiny
from xpo import Batch
from xpo.errors import ModelError
from xpo.models.cache import LogpCache, identify
from xpo.models.load import Policy, disable_dropout, load_policy
from xpo.models.reference import Reference, make_reference, start_of
from xpo.models.scoring import score
from xpo.train.settings import ModelSettings

LORA = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.3, "lora_target_modules": "all-linear"}
Flags = dict[str, bool]


@pytest.fixture(scope="module")
def batch() -> Batch:
    return Batch.of(tiny.groups("pairs", 4))


def logps(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        return score(model, batch).logps


def flags(model: torch.nn.Module) -> Flags:
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


def train(policy: Policy, reference: Reference, batch: Batch) -> None:
    """A few steps with the reference scored in between, as in the loop."""
    model = policy.model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.3)
    for _ in range(3):
        anchor = reference.score(batch).logps
        assert not anchor.requires_grad
        loss = -(score(model, batch).logps - anchor).sum() / 100
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def check(policy: Policy, reference: Reference, batch: Batch, expected: torch.Tensor) -> None:
    """The reference says ``expected`` before and after training; the policy moves away from it."""
    before = flags(policy.model)
    was_training = policy.model.training
    assert torch.equal(reference.score(batch).logps, expected)
    assert policy.model.training == was_training
    assert flags(policy.model) == before
    train(policy, reference, batch)
    assert flags(policy.model) == before
    assert torch.equal(reference.score(batch).logps, expected)
    assert float((logps(policy.model, batch) - expected).abs().max()) > 0.05


def test_a_frozen_copy_of_the_whole_model(base: Path, batch: Batch) -> None:
    config = ModelSettings(model_name_or_path=str(base))
    policy = load_policy(config)
    reference = make_reference(policy, config)
    assert (reference.description, reference.is_start) == ("frozen copy of the starting model", True)
    assert not any(flags(reference.model).values())
    assert all(flags(policy.model).values())
    check(policy, reference, batch, logps(AutoModelForCausalLM.from_pretrained(base), batch))


def test_new_adapters_switched_off_are_the_base(base: Path, batch: Batch) -> None:
    config = ModelSettings(model_name_or_path=str(base), **LORA)
    policy = load_policy(config)
    disable_dropout(policy.model)
    reference = make_reference(policy, config)
    assert reference.description == "the same model with adapters off"
    assert reference.model is policy.model
    check(policy, reference, batch, logps(AutoModelForCausalLM.from_pretrained(base), batch))


def test_a_continued_adapter_is_held_against_its_start_not_against_the_base(
    base: Path, adapter: Path, batch: Batch
) -> None:
    config = ModelSettings(model_name_or_path=str(adapter), use_peft=True)
    policy = load_policy(config)
    disable_dropout(policy.model)
    assert policy.adapter == "continued"
    reference = make_reference(policy, config)
    assert reference.description == "frozen copy of the continued adapter"
    plain = AutoModelForCausalLM.from_pretrained(base)
    bare = logps(plain, batch)
    expected = logps(PeftModel.from_pretrained(plain, adapter), batch)
    assert float((expected - bare).abs().max()) > 0.05
    trainable = {name for name, on in flags(policy.model).items() if on}
    assert trainable
    assert all(".default." in name for name in trainable)
    check(policy, reference, batch, expected)


def test_the_active_adapter_comes_back_when_scoring_fails(adapter: Path, batch: Batch) -> None:
    policy = load_policy(ModelSettings(model_name_or_path=str(adapter), use_peft=True))
    reference, before = start_of(policy), flags(policy.model)
    expected = logps(policy.model, batch)
    with pytest.raises(RuntimeError, match="out of memory"), reference.switch():
        raise RuntimeError("out of memory")
    assert flags(policy.model) == before
    assert policy.model.active_adapter == "default"
    assert torch.equal(logps(policy.model, batch), expected)


@pytest.mark.parametrize("how", ["name", "object", "adapter"])
def test_a_given_model(base: Path, adapter: Path, tmp_path: Path, batch: Batch, how: str) -> None:
    config = ModelSettings(model_name_or_path=str(base), **LORA)
    policy = load_policy(config)
    other = tiny.model(7)
    name = tiny.saved(tmp_path, 7)
    expected = logps(other, batch)
    if how == "adapter":
        name = adapter
        expected = logps(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter), batch)
    reference = make_reference(policy, config, other if how == "object" else str(name))
    assert not reference.is_start
    assert reference.description.startswith("given model")
    assert not any(flags(reference.model).values())
    check(policy, reference, batch, expected)


def test_reference_and_policy_agree_at_the_start_to_the_last_bit(base: Path, adapter: Path, batch: Batch) -> None:
    for settings in ({}, LORA, {"model_name_or_path": str(adapter), "use_peft": True}):
        config = ModelSettings(**{"model_name_or_path": str(base), **settings})
        policy = load_policy(config)
        disable_dropout(policy.model)
        policy.model.train()
        reference = make_reference(policy, config)
        assert torch.equal(score(policy.model, batch).logps.detach(), reference.score(batch).logps)


def test_a_reference_of_nan_is_named_and_not_kept(batch: Batch) -> None:
    model = tiny.model()
    with torch.no_grad():
        model.get_output_embeddings().weight[0] = float("nan")
    cache = LogpCache(identify("broken"), folder=None, limit_bytes=0)
    with pytest.raises(ModelError, match=r"the reference \(broken one\) says NaN of a completion of \d+ tokens"):
        Reference(model, "broken one", cache=cache).score(batch)
