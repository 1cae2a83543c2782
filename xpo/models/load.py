"""Load what is trained: tokenizer, policy (full, LoRA, 4-bit, or an adapter continued) and sequence classifiers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from trl import ModelConfig, get_peft_config, get_quantization_config

from xpo.errors import ModelError, SettingError, XpoError
from xpo.models.scoring import innermost, scalar_head

#: Name under which the starting state of a continued adapter is kept, frozen, as the reference.
REFERENCE_ADAPTER = "reference"


#: Names of the number that functional dropout reads of its module.
_DROPOUTS = ("attention_dropout", "dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop")


@dataclass(frozen=True)
class Policy:
    """A loaded policy.

    Attributes:
        model: the model to train, wrapped by PEFT when adapters are trained.
        origin: directory or hub id the weights came from; None for a model handed over as an object.
        adapter: ``new``, ``continued``, or None for full fine-tuning.
        quantization: ``4-bit``, ``8-bit`` or None.
    """

    model: PreTrainedModel | PeftModel
    origin: str | None
    adapter: str | None
    quantization: str | None


def load_tokenizer(config: ModelConfig, chat_template_path: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer beside the model, with another chat template if one is given."""
    name = name_of(config)
    with explained(name, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=config.model_revision, trust_remote_code=config.trust_remote_code
        )
    if chat_template_path is not None:
        tokenizer.chat_template = _template(chat_template_path)
    return tokenizer


def load_policy(config: ModelConfig, *, training: bool = True, scalar: bool = False) -> Policy:
    """Load the policy a model configuration describes, ready to train; or a reward model, with a ``scalar`` head.

    A directory that holds a PEFT adapter is loaded as that adapter on its base model. ``--use_peft`` continues it;
    its starting state is kept under a second, frozen name, since "adapters off" would be the base, not the start.
    """
    name = name_of(config)
    quantization = "4-bit" if config.load_in_4bit else "8-bit" if config.load_in_8bit else None
    if training and quantization and not config.use_peft:
        raise SettingError(
            f"{quantization} weights cannot be trained themselves; add --use_peft to train adapters on them"
        )
    with explained(name, "adapter"):
        base, adapter_path = base_of(name)
    kwargs: dict[str, Any] = {
        "revision": config.model_revision if adapter_path is None else "main",
        "trust_remote_code": config.trust_remote_code,
        "attn_implementation": config.attn_implementation,
        "dtype": dtype_of(config),
    }
    if quantization:
        kwargs["quantization_config"] = get_quantization_config(config)
        kwargs["device_map"] = {"": _local_device()}
    with explained(name, "model"):
        model = _scalar(base, kwargs) if scalar else _causal(base, kwargs)
    if scalar:
        config = replace(config, lora_task_type="SEQ_CLS")
    _keep_layout(model)
    if not training:
        if adapter_path is not None:
            with explained(name, "adapter"):
                model = PeftModel.from_pretrained(model, adapter_path)
        return Policy(model, name, None, quantization)
    if quantization:
        # Checkpointing is the training arguments' to decide, so it is not switched on here.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return adapted(model, config, name, adapter_path, quantization)


def adapt(model: PreTrainedModel | PeftModel, config: ModelConfig, *, scalar: bool = False) -> Policy:
    """Take a model handed over as an object; add adapters when the configuration asks for them."""
    if scalar != (scalar_head(innermost(model)) is not None):
        wanted = "a sequence classifier with one output" if scalar else "a causal language model"
        raise ModelError(f"the model passed is a {type(model).__name__}, and the method trains {wanted}")
    if scalar:
        config = replace(config, lora_task_type="SEQ_CLS")
    _keep_layout(model)
    if isinstance(model, PeftModel):
        return Policy(model, None, "new", None)
    return adapted(model, config, None, None, None)


def _causal(base: str, kwargs: dict[str, Any]) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, **kwargs)
    kinds = [kind for kind in model.config.architectures or () if kind.endswith("ForSequenceClassification")]
    if kinds:  # it is loaded all the same, with a head for words that is random, or the one it had before
        raise ModelError(
            f"model '{base}' is a reward model ({kinds[0]}), and here a language model is wanted; give the one it was "
            "made of, and itself as --reward"
        )
    return model


def _scalar(base: str, kwargs: dict[str, Any]) -> PreTrainedModel:
    """A decoder with a head of one output; a new head draws its weights so that rewards begin about 0 and 1 apart."""
    model, report = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, output_loading_info=True, **kwargs
    )
    head = scalar_head(model)
    if head is None:
        raise ModelError(f"model '{base}' ({type(model).__name__}) has no score at the end of a text to train")
    if any(key.startswith("score.") for key in report["missing_keys"]):
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=(parameter.shape[-1] + 1) ** -0.5)
    if model.config.pad_token_id is None:  # rows are read where xpo says, but the model itself wants to know
        model.config.pad_token_id = 0
    return model


def load_classifier(name: str, config: ModelConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a sequence-classification model with one output, or an adapter that makes one, and its tokenizer."""
    with explained(name, "reward model"):
        base, adapter = base_of(name)
        settings = AutoConfig.from_pretrained(base, trust_remote_code=config.trust_remote_code)
        if adapter is None and settings.num_labels != 1:
            raise ModelError(f"reward model '{name}' has {settings.num_labels} outputs; a reward model has one")
        model = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=1, trust_remote_code=config.trust_remote_code, dtype=dtype_of(config)
        )
        if adapter is not None:
            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=config.trust_remote_code)
    return model.eval().requires_grad_(False), tokenizer


def disable_dropout(model: torch.nn.Module) -> None:
    """Set every dropout to 0, adapters' included, so that the policy starts equal to its reference."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in _DROPOUTS:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def has_dropout(model: torch.nn.Module) -> bool:
    """Whether there is any that is not 0."""
    return any(
        (isinstance(module, torch.nn.Dropout) and module.p > 0)
        or any(isinstance(share := getattr(module, name, None), float) and share > 0 for name in _DROPOUTS)
        for module in model.modules()
    )


def parameter_counts(model: torch.nn.Module) -> tuple[int, int]:
    """(all, trainable) parameters; packed 4-bit weights count as what they unpack to."""
    total = trainable = 0
    for parameter in model.parameters():
        shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
        size = parameter.numel() if shape is None else int(torch.Size(shape).numel())
        total += size
        trainable += size if parameter.requires_grad else 0
    return total, trainable


def _keep_layout(model: torch.nn.Module) -> None:
    """Keep 4-bit weights as they are when the model is evaluated on a CPU.

    On one with bfloat16 instructions, bitsandbytes repacks them for good at the first forward in evaluation mode. The
    repacked ones pass no gradient to the layers below, and their results differ from those of training by percents.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]  # torch types every attribute


def adapted(
    model: PreTrainedModel, config: ModelConfig, name: str | None, adapter_path: str | None, quantization: str | None
) -> Policy:
    if adapter_path is not None:
        if not config.use_peft:
            raise SettingError(
                f"'{name}' holds a PEFT adapter; add --use_peft to go on training it, or merge it into its base"
            )
        with explained(adapter_path, "adapter"):
            wrapped = PeftModel.from_pretrained(model, adapter_path, is_trainable=True)
            wrapped.load_adapter(adapter_path, adapter_name=REFERENCE_ADAPTER, is_trainable=False)
        return Policy(wrapped, name, "continued", quantization)
    if not config.use_peft:
        return Policy(model, name, None, quantization)
    try:
        return Policy(get_peft_model(model, get_peft_config(config)), name, "new", quantization)
    except ValueError as error:  # PEFT explains which modules it looked for
        raise SettingError(f"adapters cannot be added: {error}") from error


def base_of(name: str) -> tuple[str, str | None]:
    """(model to load, adapter directory or None)."""
    if not (Path(name) / "adapter_config.json").is_file():
        return name, None
    base = PeftConfig.from_pretrained(name).base_model_name_or_path
    if not base:
        raise ModelError(
            f"adapter '{name}' does not name its base model (base_model_name_or_path in adapter_config.json)"
        )
    return base, name


def name_of(config: ModelConfig) -> str:
    if config.model_name_or_path is None:
        raise SettingError("no model is given; pass --model_name_or_path")
    return str(config.model_name_or_path)


def dtype_of(config: ModelConfig) -> Any:
    return config.dtype if config.dtype in ("auto", None) else getattr(torch, config.dtype)


def _local_device() -> str:
    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"


def _template(path: str) -> str:
    source = Path(path)
    if source.is_file():
        return source.read_text(encoding="utf-8")
    with explained(path, "chat template"):
        template = AutoTokenizer.from_pretrained(path).chat_template
    return str(template)


@contextmanager
def explained(name: str, what: str) -> Iterator[None]:
    """Turn what libraries raise for a missing or broken model into one message with the way out.

    A path that leads nowhere is refused at once: libraries would ask the hub for it, again and again.
    """
    if _is_path(name) and not Path(name).exists():
        raise ModelError(f"{what} '{name}' cannot be loaded: there is no such directory")
    try:
        yield
    except XpoError:
        raise
    except Exception as error:  # what a broken file raises depends on how it is broken
        if Path(name).exists():
            raise ModelError(f"{what} '{name}' cannot be loaded: {_lack(name, what) or _reason(error)}") from error
        raise ModelError(
            f"{what} '{name}' is neither a directory here nor a model that can be had from the hub: {_reason(error)}"
        ) from error


def _lack(name: str, what: str) -> str:
    """What a directory lacks, which the libraries report as a list of all that might be there."""
    folder = Path(name)
    if not folder.is_dir():
        return ""
    if not any((folder / file).is_file() for file in ("config.json", "adapter_config.json")):
        return "it holds no model, for there is no config.json in it"
    if what == "tokenizer" and not any("tok" in entry.name or "vocab" in entry.name for entry in folder.iterdir()):
        return "there is none beside the model; save it there with tokenizer.save_pretrained(...)"
    if what == "adapter" and not any(folder.glob("adapter_model.*")):
        return "there is no adapter_model.safetensors in it"
    return ""


def _reason(error: Exception) -> str:
    """The first sentence of what a library raised, without the report that often follows it."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    if isinstance(error, (KeyError, IndexError, AttributeError, TypeError)):  # their text means little by itself
        return f"it is not in a form that can be read ({type(error).__name__}: {lines[0]})"
    return lines[0]


def _is_path(name: str) -> bool:
    # A hub id is "name" or "owner/name".
    return name.startswith((".", "/", "~", "\\")) or name.endswith("/") or name.count("/") > 1 or "\\" in name
