"""Fingerprints of models: equal for what computes the same, different for what does not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from tests import tiny
from xpo import ModelError
from xpo.models.fingerprint import fingerprint
from xpo.models.load import REFERENCE_ADAPTER, load_policy
from xpo.models.reference import make_reference
from xpo.train.settings import ModelSettings

PEFT: dict[str, dict[str, Any]] = {
    "LoRA": {"target_modules": "all-linear"},
    "DoRA on one layer": {"target_modules": ["q_proj"], "use_dora": True},
    "embeddings": {"target_modules": ["embed_tokens", "v_proj"]},
    "a whole module": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "some tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [1, 5]},
    "experts' own way": {"target_modules": [], "target_parameters": ["lm_head.weight"]},
}


def model_with(tied: bool) -> LlamaForCausalLM:
    """The tiny model, its output projection tied to the embeddings if asked for."""
    model = tiny.model()
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
        assert model.lm_head.weight is model.model.embed_tokens.weight
    return model


def wrapped(model: torch.nn.Module, seed: int = 0, **settings: Any) -> PeftModel:
    """With adapters that are not 0."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made: PeftModel = get_peft_model(model, LoraConfig(r=2, task_type="CAUSAL_LM", **settings))
        for name, parameter in made.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn_like(parameter)
    return made


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", PEFT)
def test_adapters_that_are_off_do_not_count(kind: str, tied: bool) -> None:
    bare = fingerprint(model_with(tied))
    model = wrapped(model_with(tied), **PEFT[kind])
    assert fingerprint(model, adapters=False) == bare
    assert fingerprint(model) == fingerprint(model, adapter="default") != bare
    assert fingerprint(model, adapters=False) == fingerprint(model.get_base_model(), adapters=False)


def test_nor_does_a_prompt_that_is_trained() -> None:
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    model = get_peft_model(tiny.model(), config)
    assert fingerprint(model, adapters=False) == fingerprint(tiny.model()) != fingerprint(model)


def test_it_is_that_of_the_model_not_of_the_object(tmp_path: Path) -> None:
    model = tiny.model()
    expected = fingerprint(model)
    assert len(expected) == 64
    assert fingerprint(copy.deepcopy(model)) == expected
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert fingerprint(loaded) == expected
    loaded.config.use_cache, loaded.config.pad_token_id = False, 3  # what training does to a model
    loaded(input_ids=torch.tensor([[1, 2, 3]]))
    assert fingerprint(loaded.train().requires_grad_(False)) == expected


def test_tied_weights_are_what_they_are() -> None:
    """Two names of one tensor are as good as two tensors with the same numbers."""
    tied, loose = model_with(tied=True), tiny.model()
    loose.load_state_dict(tied.state_dict())
    assert loose.lm_head.weight.data_ptr() != loose.model.embed_tokens.weight.data_ptr()
    assert fingerprint(loose) == fingerprint(tied) != fingerprint(tiny.model())


def _one_bit(model: Any) -> None:
    model.model.layers[1].mlp.up_proj.weight.data[3, 4] *= 1 + 2**-20


def _swap(model: Any) -> None:
    first, second = model.model.layers[0].mlp, model.model.layers[1].mlp
    first.up_proj.weight.data, second.up_proj.weight.data = second.up_proj.weight.data, first.up_proj.weight.data


def _rotary(model: Any) -> None:
    model.model.rotary_emb.to(torch.bfloat16)


def _reshape(model: Any) -> None:
    model.lm_head.weight.data = model.lm_head.weight.data.reshape(32, -1)


@pytest.mark.parametrize("change", [_one_bit, _swap, _rotary, _reshape, torch.nn.Module.bfloat16])
def test_a_change_of_the_weights_shows(change: Callable[[Any], Any]) -> None:
    model = tiny.model()
    change(model)
    assert fingerprint(model) != fingerprint(tiny.model())


@pytest.mark.parametrize(
    "settings", [{"rms_norm_eps": 1e-5}, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, {"x": [1]}]
)
def test_a_change_of_the_settings_shows(settings: dict[str, Any]) -> None:
    assert fingerprint(tiny.model(**settings)) != fingerprint(tiny.model())


def test_settings_that_compute_nothing_do_not_show() -> None:
    model = tiny.model()
    model.config._name_or_path, model.config.id2label, model.config.architectures = "elsewhere", {0: "a"}, ["X"]
    model.config._attn_implementation = "eager"
    assert fingerprint(model) == fingerprint(tiny.model())


def test_each_adapter_has_its_own_and_its_name_does_not_matter(base: Path, adapter: Path) -> None:
    policy = load_policy(ModelSettings(model_name_or_path=str(adapter), use_peft=True)).model
    alone = load_policy(ModelSettings(model_name_or_path=str(adapter)), training=False).model
    reference = fingerprint(policy, adapter=REFERENCE_ADAPTER)
    assert reference == fingerprint(policy, adapter="default") == fingerprint(alone)
    assert fingerprint(policy, adapters=False) == fingerprint(AutoModelForCausalLM.from_pretrained(base))
    for name, parameter in policy.named_parameters():
        if "lora_B.default" in name:
            parameter.data += 0.01
    assert fingerprint(policy, adapter=REFERENCE_ADAPTER) == reference != fingerprint(policy, adapter="default")
    with pytest.raises(ValueError, match="no adapter 'other', only default, reference"):
        fingerprint(policy, adapter="other")


def test_how_strongly_an_adapter_counts_shows() -> None:
    model = wrapped(tiny.model(), target_modules=["q_proj"], lora_alpha=4)
    stronger = wrapped(tiny.model(), target_modules=["q_proj"], lora_alpha=8)
    assert fingerprint(model) != fingerprint(stronger)
    before = fingerprint(model)
    for module in model.modules():
        if hasattr(module, "set_scale"):
            module.set_scale("default", 0.5)
    assert fingerprint(model) != before
    assert fingerprint(model, adapters=False) == fingerprint(stronger, adapters=False)


@pytest.mark.parametrize("double", [False, True])
def test_quantised_weights(base: Path, double: bool) -> None:
    pytest.importorskip("bitsandbytes")

    def load(**settings: Any) -> Any:
        chosen = {"load_in_4bit": True, "use_bnb_nested_quant": double, **settings}
        return load_policy(ModelSettings(model_name_or_path=str(base), **chosen), training=False).model

    packed = load()
    expected = fingerprint(packed)
    assert expected == fingerprint(load())
    assert expected != fingerprint(load(load_in_4bit=False))
    assert expected != fingerprint(load(use_bnb_nested_quant=not double))
    assert expected != fingerprint(load(bnb_4bit_quant_type="fp4"))
    packed(input_ids=torch.tensor([[1, 2, 3]]))
    assert expected == fingerprint(packed)
    trained = wrapped(load(), target_modules="all-linear")
    assert expected == fingerprint(trained, adapters=False) != fingerprint(trained)
    packed.model.layers[0].mlp.up_proj.weight.quant_state.absmax[0] += 1
    assert expected != fingerprint(packed)


def test_a_policy_and_its_frozen_copy_agree(base: Path) -> None:
    config = ModelSettings(model_name_or_path=str(base), use_peft=True, lora_target_modules="all-linear")
    full = load_policy(ModelSettings(model_name_or_path=str(base)))
    lora = load_policy(config)
    expected = fingerprint(make_reference(full, ModelSettings()).model)
    assert expected == fingerprint(make_reference(lora, config).model, adapters=False)


def test_weights_that_are_not_here_are_refused() -> None:
    model = tiny.model()
    model.lm_head.to("meta")
    with pytest.raises(ModelError, match=r"lm_head\.weight.*without the reference cache"):
        fingerprint(model)
    model = tiny.model()
    model.lm_head.weight.ds_id = 0  # as DeepSpeed marks what it has partitioned
    with pytest.raises(ModelError, match=r"lm_head\.weight"):
        fingerprint(model)


@pytest.mark.gpu
def test_the_device_does_not_matter() -> None:
    assert fingerprint(tiny.model().cuda()) == fingerprint(tiny.model())
