"""Fingerprint of a frozen model: the same for models that compute the same, whatever they are called or wrapped in.

What decides log-probabilities is the bytes of every tensor and the settings of the architecture. Names, paths and
versions do not. Neither does PEFT around a model whose adapters are off, which is what makes one base model one
reference for all the runs that train adapters on it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import torch
from peft import PeftModel

from xpo.errors import ModelError

# Settings that say what a model is called, how it is generated from or what it reports: nothing of them is computed
# with. Dtypes and tied weights show in the tensors. Trainers rewrite the special tokens as they start.
_IDLE = {
    *("transformers_version", "architectures", "auto_map", "dtype", "torch_dtype", "use_cache", "tie_word_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "tokenizer_class"),
    *("id2label", "label2id", "problem_type", "task_specific_params", "finetuning_task", "prefix"),
    *("return_dict", "output_attentions", "output_hidden_states", "initializer_range"),
}
# The same for an adapter. Which modules it is on shows in its tensors.
_IDLE_IN_ADAPTER = {
    *("base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping", "task_type"),
    *("target_modules", "exclude_modules", "modules_to_save", "lora_dropout", "init_lora_weights", "runtime_config"),
}

#: Modules that PEFT put in place of others, by name, and the name under which each holds the one it replaced.
Wrappers = Mapping[str, tuple[torch.nn.Module, str]]
_REPLACED = ("base_layer", "original_module", "token_adapter")  # the last is a wrapper in a wrapper
_THREADS = 4


def fingerprint(model: torch.nn.Module, *, adapters: bool = True, adapter: str | None = None) -> str:
    """64 hexadecimal digits that say what ``model`` computes in evaluation.

    Args:
        adapters: False for a PEFT model with its adapters off: the digits of the bare base model.
        adapter: the name of one adapter, active or not: the base with that one on. The name itself does not count.
            By default those that are active.

    Raises:
        ModelError: weights are not here to be read: offloaded, or partitioned over processes.
        ValueError: there is no such adapter.
    """
    base: torch.nn.Module = model.get_base_model() if isinstance(model, PeftModel) else model
    wrappers = _wrappers(base)
    chosen = [adapter] if adapter is not None else _active(model, wrappers) if adapters else []
    known: Mapping[str, Any] = getattr(model, "peft_config", {})
    if missing := [name for name in chosen if name not in known]:
        raise ValueError(f"the model has no adapter '{missing[0]}', only {', '.join(known) or 'none'}")

    tensors: dict[str, Any] = {}
    for place, rest, value in _state(model, base, wrappers):
        owner = next((part for part in rest if part in known), None)
        if not rest:
            tensors[place] = value
        elif owner is None and (place or chosen):  # not known to be an adapter's: it may matter without any
            tensors[f"{place} shared {'.'.join(rest)}"] = value
        elif owner in chosen:
            rest.remove(owner)
            tensors[f"{place} adapter {chosen.index(owner)} {'.'.join(rest)}"] = value
    facts = [
        f"{type(base).__module__}.{type(base).__qualname__}",
        _json(getattr(base, "config", None), _IDLE),
        *(_json(known[name], _IDLE_IN_ADAPTER, scaling=_scaling(name, wrappers)) for name in chosen),
        *_buffers(base, wrappers),
        *_digests(tensors),
    ]
    return sha256("\n".join(facts).encode()).hexdigest()


def _wrappers(base: torch.nn.Module) -> Wrappers:
    found = {}
    for name, module in base.named_modules(remove_duplicate=False):
        inner = [child for child in _REPLACED if module._modules.get(child) is not None]
        if inner and hasattr(module, "adapter_layer_names"):
            found[name] = module, inner[0]
    return found


def _active(model: torch.nn.Module, wrappers: Wrappers) -> list[str]:
    if isinstance(model, PeftModel):
        return list(model.active_adapters)
    # transformers can put adapters into a model without a wrapper around the whole.
    return sorted({name for module, _ in wrappers.values() for name in module.active_adapters})  # type: ignore[union-attr]  # torch types every attribute


def _state(
    model: torch.nn.Module, base: torch.nn.Module, wrappers: Wrappers
) -> Iterator[tuple[str, list[str], torch.Tensor]]:
    """Every tensor with its place, as ``_place`` tells it; those of a prompt adapter lie outside ``base``."""
    path = next(name for name, module in model.named_modules() if module is base)
    inside = f"{path}." if path else ""
    for name, value in model.state_dict(keep_vars=True).items():
        if name.startswith(inside):
            yield (*_place(name.removeprefix(inside), wrappers), value)
        else:
            yield "", name.split("."), value


def _place(name: str, wrappers: Wrappers) -> tuple[str, list[str]]:
    """The name a tensor has in the bare model; for one of an adapter, that of the module it is on, and the rest."""
    parts = name.split(".")
    place: list[str] = []
    replaced = None
    for depth, part in enumerate(parts):
        if replaced is None:
            place.append(part)
        elif part != replaced:
            return ".".join(place), parts[depth:]
        _, replaced = wrappers.get(".".join(parts[: depth + 1]), (None, None))
    return ".".join(place), []


def _settings(config: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {} if config is None else config.to_dict()
    return settings


def _clean(value: Any, idle: set[str]) -> Any:
    """Settings without those that change nothing, at every depth; what begins with an underscore is the library's."""
    if isinstance(value, Mapping):
        kept = {str(key): _clean(inner, idle) for key, inner in value.items() if key not in idle}
        return {key: inner for key, inner in kept.items() if not key.startswith("_")}
    if isinstance(value, (list, tuple)):
        return [_clean(inner, idle) for inner in value]
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else value


def _json(config: Any, idle: set[str], **more: Any) -> str:
    return json.dumps(_clean({**_settings(config), **more}, idle), sort_keys=True, default=str)


def _scaling(name: str, wrappers: Wrappers) -> dict[str, Any]:
    """How strongly an adapter counts, module by module: it can be changed without its configuration."""
    scales = ((place, getattr(module, "scaling", None)) for place, (module, _) in wrappers.items())
    return {_place(place, wrappers)[0]: s[name] for place, s in scales if isinstance(s, dict) and name in s}


def _buffers(base: torch.nn.Module, wrappers: Wrappers) -> list[str]:
    """Dtypes of what is not saved, such as rotary frequencies: the settings say its values, but not its precision."""
    saved = base.state_dict(keep_vars=True)
    found = []
    for name, buffer in base.named_buffers(remove_duplicate=False):
        place, rest = _place(name, wrappers)
        if name not in saved and not rest:
            found.append(f"{place} {buffer.dtype}")
    return sorted(found)


def _digests(tensors: Mapping[str, Any]) -> list[str]:
    """A line for each tensor. One that has several names, as tied weights have, is read once."""
    kept = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
    lines = [f"{name} {tensors[name]!r}" for name in sorted(tensors.keys() - kept.keys())]  # a layer's own extra state
    storages = {name: (t.device, t.data_ptr(), t.shape, t.stride(), t.dtype) for name, t in kept.items()}
    unique = {storage: name for name, storage in storages.items()}
    with ThreadPoolExecutor(min(_THREADS, torch.get_num_threads())) as pool:  # hashing lets go of the interpreter
        digests = dict(zip(unique, pool.map(lambda name: _digest(name, kept[name]), unique.values()), strict=True))
    lines += [f"{name} {kept[name].dtype} {[*kept[name].shape]} {digests[storages[name]]}" for name in sorted(kept)]
    return lines


def _digest(name: str, tensor: torch.Tensor) -> str:
    # Elsewhere: offloaded by accelerate, partitioned by DeepSpeed or by FSDP. Their digests would be those of nothing.
    elsewhere = tensor.is_meta or hasattr(tensor, "ds_id") or hasattr(tensor, "to_local")
    try:
        data = None if elsewhere else tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    except (RuntimeError, TypeError):  # a kind of tensor that shows its bytes to nobody
        data = None
    if data is None:
        raise ModelError(
            f"the weights '{name}' are offloaded, partitioned or packed in a way of their own, so nothing can tell "
            "this model from another one; run without the reference cache"
        )
    return sha256(data.data).hexdigest()
