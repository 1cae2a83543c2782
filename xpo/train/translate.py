"""Flags of other programs whose values say what settings of xpo say: they become those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from xpo.errors import SettingError
from xpo.train.sources import Given
from xpo.train.values import plain, same

#: Flag -> (a value of it, the setting that says the same, its value).
_SAID: Mapping[str, tuple[bool, str, str]] = {
    "group_by_length": (True, "train_sampling_strategy", "group_by_length"),
    "shuffle_dataset": (False, "train_sampling_strategy", "sequential"),
}
#: What TRL hands to ``from_pretrained`` -> the setting.
_LOADED = {
    "dtype": "dtype",
    "torch_dtype": "dtype",
    "attn_implementation": "attn_implementation",
    "revision": "model_revision",
    "trust_remote_code": "trust_remote_code",
    "use_cache": "use_cache",
}


def translated(given: Given) -> list[Given]:
    """The settings that say what ``given`` says; ``given`` itself where none does.

    Raises:
        SettingError: a part of it can be said by none.
    """
    value = plain(given.value)
    if given.name in _SAID:
        meant, setting, says = _SAID[given.name]
        return [replace(given, name=setting, value=says)] if same(value, meant) else [given]
    if given.name == "model_init_kwargs" and isinstance(value, Mapping):
        return [_loaded(given, name, said) for name, said in value.items() if said is not None]
    return [given]


def _loaded(given: Given, name: str, value: Any) -> Given:
    if name not in _LOADED:
        raise SettingError(
            f"{given.label}: {name} cannot be honoured; a model is loaded with {', '.join(dict.fromkeys(_LOADED))}"
        )
    # From Python a type may be torch's own.
    text = value if isinstance(value, (bool, str)) else str(value).removeprefix("torch.")
    return replace(given, name=_LOADED[name], value=text)
