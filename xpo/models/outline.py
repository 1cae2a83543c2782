"""The outline of a model: its modules, adapters and all, without a weight.

It is built on torch's meta device from the configuration alone, so that what training would take can be told before
anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from trl import ModelConfig, get_quantization_config

from xpo.compat import AutoHfQuantizer
from xpo.models.hollow import stand_in
from xpo.models.load import (
    REFERENCE_ADAPTER,
    Policy,
    adapted,
    base_of,
    dtype_of,
    explained,
    name_of,
    parameter_counts,
)
from xpo.models.scoring import Model, innermost


@dataclass(frozen=True)
class Outline:
    """A model without weights.

    Attributes:
        policy: the model, on the meta device, with its adapters; quantised layers are stand-ins.
        parameters, trainable: how many there are; quantised weights count as what they unpack to.
        stored: bytes its weights take in their files, if they are converted on the way in; else 0.
        lines: what is not as it will be.
    """

    policy: Policy
    parameters: int
    trainable: int
    stored: int = 0
    lines: tuple[str, ...] = ()


def outline(config: ModelConfig, *, scalar: bool = False) -> Outline:
    """The outline of what ``load_policy`` would load, with the same errors; ``scalar`` for a reward model.

    Raises:
        XpoError: the model cannot be trained as asked, or its configuration cannot be read.
    """
    name = name_of(config)
    quantization = "4-bit" if config.load_in_4bit else "8-bit" if config.load_in_8bit else None
    with explained(name, "adapter"):
        base, adapter = base_of(name)
    known: dict[str, Any] = {
        "revision": config.model_revision if adapter is None else "main",
        "trust_remote_code": config.trust_remote_code,
    }
    with explained(name, "model"):
        settings = AutoConfig.from_pretrained(base, **known)
        lines, attention = _attention(config)
        kept = getattr(settings, "dtype", None) or torch.float32
        dtype = dtype_of(config)
        dtype = dtype if isinstance(dtype, torch.dtype) else kept
        with torch.device("meta"):
            if scalar:
                settings.num_labels = 1
            made = AutoModelForSequenceClassification if scalar else AutoModelForCausalLM
            model = made.from_config(
                settings, dtype=dtype, attn_implementation=attention, trust_remote_code=config.trust_remote_code
            )
    if scalar:
        config = replace(config, lora_task_type="SEQ_CLS")
    count = sum(one.numel() for one in model.parameters())
    stored = count * kept.itemsize if kept != dtype or quantization else 0
    if getattr(settings, "quantization_config", None) is not None and not quantization:
        lines.append("memory: the weights are quantised in their files, which is not taken into account")
    with torch.device("meta"):
        if quantization:
            quantizer = AutoHfQuantizer.from_config(get_quantization_config(config), pre_quantized=False)
            quantizer.preprocess_model(model, device_map=None)
            quantizer.postprocess_model(model)
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        if adapter is not None and config.use_peft:
            policy = Policy(_continued(model, adapter), name, "continued", quantization)
        else:
            policy = adapted(model, config, name, adapter, quantization)
    counts = parameter_counts(policy.model)
    stand_in(policy.model, nested=bool(config.use_bnb_nested_quant))
    return Outline(policy, *counts, stored, tuple(lines))


def outline_of(model: Model, config: ModelConfig) -> Outline:
    """The outline of a model handed over as an object, whose own weights stay untouched."""
    inner: Any = innermost(model)
    with torch.device("meta"):
        bare = type(inner)(inner.config).to(inner.dtype)
        if isinstance(model, PeftModel):
            (adapter, *_) = model.peft_config.values()
            policy = Policy(get_peft_model(bare, adapter), None, "new", None)
        else:
            policy = adapted(bare, config, None, None, None)
    return Outline(policy, *parameter_counts(policy.model))


def _continued(model: PreTrainedModel, adapter: str) -> PeftModel:
    """Adapters of the shapes that ``adapter`` has, and a frozen copy of them as the reference."""
    with explained(adapter, "adapter"):
        config = PeftConfig.from_pretrained(adapter)
    config.inference_mode = False
    config.init_lora_weights = True  # other ways to begin are computed from the weights
    made: PeftModel = get_peft_model(model, config)
    made.add_adapter(REFERENCE_ADAPTER, replace(config, inference_mode=True))
    for name, parameter in made.named_parameters():
        if f".{REFERENCE_ADAPTER}." in name:
            parameter.requires_grad_(False)
    return made


def _attention(config: ModelConfig) -> tuple[list[str], str | None]:
    """Lines about the attention that stands in for the one asked for, and its name."""
    asked = config.attn_implementation
    if asked in (None, "sdpa", "eager"):
        return [], asked
    return [f"memory: counted as with --attn_implementation sdpa, in place of {asked}"], "sdpa"
