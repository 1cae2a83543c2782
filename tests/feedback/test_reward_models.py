"""Reward models beside a policy: on its backbone where they can be, by themselves where not, and the same in both."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForSequenceClassification

from tests import scalars, tiny
from xpo import Batch, ModelError
from xpo.feedback.reward_models import ModelReward
from xpo.feedback.rewards import find_rewards
from xpo.models.load import Policy, load_policy
from xpo.models.networks import Scalar
from xpo.models.reference import make_reference
from xpo.models.scoring import score
from xpo.train.settings import ModelSettings

PROMPTS = ["w1 w2 ", "w3 ", "w4 w5 w6 ", "w7 "]
TEXTS = ["w0", "w1 w9", "w2 w0 w0 w11 w12", "w0 w9 w30 w31 w32"]
BATCH = Batch.of(tiny.groups("pairs", 4))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.saved(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scalars.reward_model(tmp_path_factory.mktemp("adapter"), base, lora=True, lora_target_modules="all-linear")


def beside(name: Path, policy: Policy | None = None) -> ModelReward:
    return ModelReward.load(str(name), ModelSettings(), policy)


def rewards(reward: ModelReward) -> list[float]:
    return reward(prompts=PROMPTS, completions=TEXTS)


def train(policy: Policy) -> None:
    """Some steps of any training at all."""
    optimiser = torch.optim.SGD([one for one in policy.model.parameters() if one.requires_grad], lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        (-score(policy.model, BATCH).logps.sum(-1).mean()).backward()
        optimiser.step()


def said(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        return score(policy.model, BATCH).logps


@pytest.mark.parametrize("state", ["new", "continued"])
def test_an_adapter_on_the_policys_backbone_says_what_it_says_by_itself(
    base: Path, adapter: Path, tmp_path: Path, state: str
) -> None:
    policy = scalars.policy(base, lora_dropout=0.3)
    if state == "continued":
        scalars.stir(policy.model, seed=5)
        policy.model.save_pretrained(tmp_path)
        policy = scalars.policy(tmp_path)
    assert policy.adapter == state
    expected = rewards(beside(adapter))
    assert max(expected) - min(expected) > 0.3
    shared = beside(adapter, policy)
    assert shared.scalar.apart is None
    assert "on the policy's own weights" in shared.describe()
    assert rewards(shared) == pytest.approx(expected, abs=1e-5)
    before = said(policy)
    policy.model.train()
    train(policy)
    assert float((said(policy) - before).abs().max()) > 0.05
    assert rewards(shared) == pytest.approx(expected, abs=1e-5)


def test_asking_it_leaves_the_policy_as_it_was(base: Path, adapter: Path) -> None:
    policy = scalars.policy(base)
    scalars.stir(policy.model, seed=5)
    policy.model.train()
    names = {name for name, one in policy.model.named_parameters() if one.requires_grad}
    every = {name: one.detach().clone() for name, one in policy.model.state_dict().items()}
    modes = {name: module.training for name, module in policy.model.named_modules()}
    settings = policy.model.config.to_dict()
    reference = make_reference(policy, ModelSettings()).score(BATCH).logps
    rewards(beside(adapter, policy))
    assert {name for name, one in policy.model.named_parameters() if one.requires_grad} == names
    assert policy.model.state_dict().keys() == every.keys()  # nothing more to save
    assert all(torch.equal(one, every[name]) for name, one in policy.model.state_dict().items())
    assert {name: module.training for name, module in policy.model.named_modules()} == modes
    assert policy.model.config.to_dict() == settings
    assert list(policy.model.peft_config) == ["default"]
    assert torch.equal(make_reference(policy, ModelSettings()).score(BATCH).logps, reference)


def test_it_has_neither_gradient_nor_dropout(base: Path, adapter: Path) -> None:
    shared = beside(adapter, scalars.policy(base))
    assert not any(one.requires_grad for one in shared.scalar.model.parameters())
    assert not any(module.training for module in shared.scalar.model.modules())
    assert rewards(shared) == rewards(shared)


def test_it_goes_where_the_policy_goes(base: Path, adapter: Path) -> None:
    policy = scalars.policy(base)
    shared = beside(adapter, policy)
    alone = beside(scalars_full(base), policy)
    policy.model.to("meta")
    assert {one.device.type for one in shared.scalar.placed().parameters()} == {"meta"}
    assert {one.device.type for one in alone.scalar.placed().parameters()} == {"meta"}


def scalars_full(base: Path) -> Path:
    folder = base.parent / "full"
    return folder if folder.exists() else scalars.reward_model(folder, base, lora=False)


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_a_quantised_backbone_is_shared_too(base: Path, tmp_path: Path, bits: str) -> None:
    pytest.importorskip("bitsandbytes")
    quantised = {bits: True, "lora_target_modules": "all-linear"}
    base = tiny.saved(tmp_path / "base", hidden_size=64, intermediate_size=128)
    adapter = scalars.reward_model(tmp_path / "adapter", base, lora=True, **quantised)
    policy, other = (scalars.policy(base, **quantised) for _ in range(2))
    alone = scalars.held(policy.model)
    shared = beside(adapter, policy)
    assert shared.scalar.apart is None
    own = [one for name, one in shared.scalar.model.named_parameters() if "lora_" in name or "score" in name]
    own += list(shared.scalar.model.buffers())
    added = scalars.held(shared.scalar.model).keys() - alone.keys()
    assert added <= {one.untyped_storage().data_ptr() for one in own}
    # The order in which the two are first asked must not matter: 8-bit weights are laid out by the first.
    expected = rewards(beside(adapter, other))
    logps = said(policy)
    assert rewards(shared) == pytest.approx(expected, abs=1e-6)
    assert torch.equal(said(policy), logps)
    assert torch.equal(said(other), logps)
    alone_in_bits = load_policy(
        ModelSettings(model_name_or_path=str(adapter), **{bits: True}), training=False, scalar=True
    )
    model = Scalar(alone_in_bits.model.eval(), shared.scalar.tokenizer, str(adapter), scalars.ZERO)
    assert expected == pytest.approx(rewards(ModelReward(model)), abs=1e-5)
    assert expected != pytest.approx(rewards(beside(adapter)), abs=1e-4)  # on the weights as they were


def test_another_name_for_the_same_weights_is_found_out(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    relative = scalars.policy(Path(base.name))
    assert beside(adapter, relative).scalar.apart is None
    copied = scalars.policy(Path(shutil.copytree(base, tmp_path / "copy")))
    assert beside(adapter, copied).scalar.apart is None
    assert os.fspath(base) not in str(copied.origin)


def test_a_model_that_was_passed_is_looked_at(base: Path, adapter: Path) -> None:
    """Its name says where it was loaded from, and not what has been done to it since."""
    for change in (0.0, 0.1):
        model = tiny.model()
        model.load_state_dict({name: one + change for name, one in model.state_dict().items()})
        model.config._name_or_path = str(base)
        wrapped = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM"))
        apart = beside(adapter, Policy(wrapped, None, "new", None)).scalar.apart
        assert (apart is None) == (change == 0.0)


def strange(base: Path, folder: Path, **settings: Any) -> Path:
    """A reward adapter that brings more than low-rank matrices."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    made = get_peft_model(model, LoraConfig(r=2, task_type="SEQ_CLS", **settings))
    scalars.stir(made, seed=2)
    made.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("why", ["full", "trained in full", "base", "more"])
def test_what_cannot_share_is_a_model_of_its_own(base: Path, adapter: Path, tmp_path: Path, why: str) -> None:
    policy, name = scalars.policy(base, use_peft=why != "trained in full"), adapter
    if why == "full":
        name = scalars_full(base)
    elif why == "base":
        name = scalars.reward_model(tmp_path / "rm", tiny.saved(tmp_path / "base", seed=3), lora=True)
    elif why == "more":
        name = strange(base, tmp_path / "rm", modules_to_save=["score", "embed_tokens"])
    expected, before = rewards(beside(name)), said(policy)
    found = beside(name, policy)
    reasons = {"full": "all its weights", "trained in full": "trained in full", "base": "base", "more": "more than"}
    assert found.scalar.apart is not None
    assert reasons[why] in found.describe()
    assert not scalars.held(found.scalar.model).keys() & scalars.held(policy.model).keys()
    assert rewards(found) == pytest.approx(expected, abs=1e-6)
    assert torch.equal(said(policy), before)
    if why == "trained in full":
        train(policy)
        assert rewards(found) == pytest.approx(expected, abs=1e-6)


def test_a_policy_that_trains_its_biases_is_not_shared_with(tmp_path: Path) -> None:
    base = tiny.saved(tmp_path / "base", attention_bias=True)
    adapter = scalars.reward_model(tmp_path / "rm", base, lora=True)
    wrapped = get_peft_model(scalars.policy(base, use_peft=False).model, LoraConfig(r=2, bias="all"))
    assert beside(adapter, Policy(wrapped, str(base), "new", None)).scalar.apart is not None


def test_classifiers_of_another_form_judge_as_ever(base: Path, tmp_path: Path) -> None:
    """An encoder with a head called otherwise."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = AutoConfig.for_model("bert", vocab_size=tiny.SIZE, num_labels=1, initializer_range=0.3, **sizes)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    (reward,) = find_rewards([str(tmp_path)], None, {}, ModelSettings(), scalars.policy(base))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    texts = [prompt + text for prompt, text in zip(PROMPTS, TEXTS, strict=True)]
    alone = [float(model(torch.tensor([tiny.tokenizer()(text)["input_ids"]])).logits.detach()) for text in texts]
    assert reward.function(prompts=PROMPTS, completions=TEXTS) == pytest.approx(alone, abs=1e-5)
    assert "a model of its own" in str(reward.describe())


def test_a_function_has_nothing_to_tell() -> None:
    (reward,) = find_rewards([len], None, {}, ModelSettings())
    assert reward.describe() is None


def test_a_base_that_is_gone_is_named(base: Path, adapter: Path, tmp_path: Path) -> None:
    gone = Path(shutil.copytree(adapter, tmp_path / "rm"))
    config = gone / "adapter_config.json"
    config.write_text(config.read_text().replace(str(base), str(tmp_path / "gone")))
    with pytest.raises(ModelError, match="gone"):
        beside(gone, scalars.policy(base))
