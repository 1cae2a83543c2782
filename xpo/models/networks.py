"""Networks that stand beside a policy: they share what they can with it, and say why where they cannot.

A network on the policy's own backbone is a second skeleton of modules that holds the very same frozen parameters. So
nothing is switched on the policy, neither its adapters nor its mode, and nothing it trains reaches the other network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, load_peft_weights
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase
from trl import ModelConfig

from xpo.models.load import Policy, adapted, base_of, dtype_of, explained, load_classifier
from xpo.models.scoring import Model, backbone, innermost, scalar_head
from xpo.models.zero import Zero

#: What transformers notes about quantised weights on a model; PEFT asks for it.
_QUANTISED = ("is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized", "quantization_method", "hf_quantizer")


@dataclass(frozen=True)
class Scalar:
    """A frozen model that reads one number at the end of a text.

    Attributes:
        model, tokenizer: in evaluation mode, without gradient.
        name: directory or hub id it came from.
        zero: where its numbers have their zero, if it was trained here.
        apart: why it is a model of its own; None for an adapter on the policy's backbone.
        policy: the policy it was loaded beside; it goes to the policy's device.
    """

    model: Model
    tokenizer: PreTrainedTokenizerBase
    name: str
    zero: Zero | None = None
    apart: str | None = None
    policy: Policy | None = None

    def placed(self) -> Model:
        """The model, on the device of the policy, which moves when training begins."""
        if self.policy is not None:
            device = next(self.policy.model.parameters()).device
            if any(one.device != device for one in (*self.model.parameters(), *self.model.buffers())):
                self.model.to(device)
        return self.model

    def describe(self) -> str:
        """Where it is computed, in a line."""
        what = "an adapter on the policy's own weights" if self.apart is None else f"a model of its own, {self.apart}"
        return f"reward model {self.name}: {what}"


def load_scalar(name: str, config: ModelConfig, policy: Policy | None = None) -> Scalar:
    """A reward model: on the policy's backbone where it is an adapter on the same base; otherwise by itself.

    Raises:
        ModelError: it cannot be loaded, or has not one output.
    """
    with explained(name, "reward model"):
        base, adapter = base_of(name)
        apart = _apart(base, adapter, config, policy)
        if policy is not None and adapter is not None and apart is None:
            model = scalar_on(policy, adapter, config)
            if model is not None:
                tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=config.trust_remote_code)
                return Scalar(model, tokenizer, name, Zero.beside(name), None, policy)
            apart = "as its adapter holds more than low-rank matrices and a score, or the policy trains its base too"
    model, tokenizer = load_classifier(name, config)
    return Scalar(model, tokenizer, name, Zero.beside(name), apart, policy)


def scalar_on(policy: Policy, adapter: str, config: ModelConfig) -> PeftModel | None:
    """A sequence classifier of the policy's frozen weights and an adapter of another's; None if there can be none."""
    keys = load_peft_weights(adapter, device="cpu").keys()
    # Anything else would be written into weights that the policy holds too.
    if not all(".lora_" in key or ".score." in key for key in keys) or not any(".score." in key for key in keys):
        return None
    inner: Any = bare(policy.model)
    if any(one.requires_grad for one in inner.parameters()):
        return None
    inner.config.num_labels = 1
    with torch.device("meta"):
        made: Any = AutoModelForSequenceClassification.from_config(
            inner.config, trust_remote_code=config.trust_remote_code
        )
    head, prefix = scalar_head(made), made.base_model_prefix
    if head is None or type(getattr(inner, prefix, None)) is not type(getattr(made, prefix)):
        return None
    made.config = inner.config  # the very object that its layers read
    setattr(made, prefix, getattr(inner, prefix))
    for name in _QUANTISED:
        if hasattr(inner, name):
            setattr(made, name, getattr(inner, name))
    like = inner.get_output_embeddings().weight  # it reads the same states
    head.to_empty(device=like.device).to(like.dtype if like.is_floating_point() else torch.float32)
    return PeftModel.from_pretrained(made, adapter).eval().requires_grad_(False)


def twin(model: Model, shared: Iterable[torch.nn.Parameter]) -> Model:
    """A copy of ``model`` that holds the ``shared`` parameters themselves."""
    kept: dict[int, Any] = {id(one): one for one in shared}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if id(weight) in kept:
            # Of 4-bit weights the scales, as large as a sixteenth of them; of 8-bit ones all there is.
            for name in ("quant_state", *(("state",) if hasattr(weight, "SCB") else ())):
                state = getattr(module, name, None)
                if state is not None:
                    kept[id(state)] = state
    return copy.deepcopy(model, kept)


def bare(model: Model) -> Model:
    """The model inside adapters as it was before they were put in, its frozen parameters shared."""
    inner = innermost(twin(model, [one for one in model.parameters() if not one.requires_grad]))
    _strip(inner)
    return inner


def _strip(module: torch.nn.Module) -> None:
    for name, child in list(module.named_children()):
        while hasattr(child, "adapter_layer_names"):
            inside = ("base_layer", "original_module", "token_adapter")
            child = next(one for key in inside if (one := child._modules.get(key)) is not None)
        setattr(module, name, child)
        _strip(child)


def _apart(base: str, adapter: str | None, config: ModelConfig, policy: Policy | None) -> str | None:
    """Why a reward model cannot be computed on the policy's backbone; None if it can."""
    if policy is None or adapter is None:
        return "as all its weights are its own" if adapter is None else "as there is no policy to share with"
    if policy.adapter is None:
        return "as the policy is trained in full"
    if _same_name(base, adapter, config, policy):
        return None
    if policy.quantization is not None:
        return f"as its base is {base}"
    settings = {"trust_remote_code": config.trust_remote_code, "dtype": dtype_of(config)}
    theirs = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, **settings)
    mine = dict(backbone(innermost(bare(policy.model))).named_parameters())
    for name, one in backbone(theirs).named_parameters():
        if name not in mine or mine[name].shape != one.shape or not torch.equal(mine[name].cpu(), one):
            return f"as its base, {base}, has other weights"
    return None


def _same_name(base: str, adapter: str, config: ModelConfig, policy: Policy) -> bool:
    """Whether both were loaded from one place. A model that was passed as an object may have been changed since."""
    if policy.origin is None:
        return False
    mine, continued = base_of(policy.origin)
    if Path(mine).exists() and Path(base).exists():
        return Path(mine).resolve() == Path(base).resolve()
    revision = PeftConfig.from_pretrained(adapter).revision or "main"
    return mine == base and revision == ("main" if continued else config.model_revision or "main")


def adapters_on(model: Model, config: ModelConfig) -> Model:
    """New adapters, trainable, on a scalar model whose weights stay as they are and stay where they are."""
    settings = replace(config, lora_task_type="SEQ_CLS", use_peft=True)
    return adapted(twin(model, model.parameters()), settings, None, None, None).model
