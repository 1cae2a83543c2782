"""The only file that touches what a library does not export or prints unasked."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._python_dispatch import _disable_current_modes as outside_modes
    from torch.utils._pytree import tree_leaves
    from transformers.cache_utils import LinearAttentionCacheLayerMixin
    from transformers.integrations import get_available_reporting_integrations
    from transformers.quantizers import AutoHfQuantizer
    from transformers.trainer_utils import EvalLoopOutput, get_last_checkpoint
    from trl.generation.vllm_client import VLLMClient

__all__ = [
    "AutoHfQuantizer",
    "EvalLoopOutput",
    "FakeTensorMode",
    "LinearAttentionCacheLayerMixin",
    "TorchDispatchMode",
    "VLLMClient",
    "attending",
    "attention_of",
    "block_mask",
    "checkpoint_activations",
    "checkpoints",
    "get_available_reporting_integrations",
    "get_last_checkpoint",
    "no_bars",
    "outside_modes",
    "quiet",
    "tree_leaves",
    "uncompiled",
]

#: Names that a library does not export at the top, where they live, and what they are called there if not the same.
_BORROWED = {
    "AutoHfQuantizer": "transformers.quantizers",
    "EvalLoopOutput": "transformers.trainer_utils",
    "LinearAttentionCacheLayerMixin": "transformers.cache_utils",
    "VLLMClient": "trl.generation.vllm_client",
    "get_available_reporting_integrations": "transformers.integrations",
    "get_last_checkpoint": "transformers.trainer_utils",
    "FakeTensorMode": "torch._subclasses.fake_tensor",
    "TorchDispatchMode": "torch.utils._python_dispatch",
    "outside_modes": "torch.utils._python_dispatch:_disable_current_modes",
    "tree_leaves": "torch.utils._pytree",
}

#: Loggers whose warnings are about their own upkeep, or say what xpo's messages say better.
_CHATTY = ("transformers", "datasets", "peft", "accelerate", "bitsandbytes", "trl", "huggingface_hub", "torchao")


def quiet() -> None:
    """Send no telemetry, and keep libraries from writing beside xpo's own lines. Call it before they are imported.

    Only their chatter goes: what a library raises still reaches the user. ``XPO_DEBUG=1`` lets everything through.
    """
    for variable in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ.setdefault(variable, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if os.environ.get("XPO_DEBUG"):
        return
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    if "transformers" in sys.modules:  # imported before the environment could tell it
        sys.modules["transformers"].logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|transformers|peft|accelerate|trl)\b")


def __getattr__(name: str) -> Any:
    # On demand: the command line imports this module before it may import transformers.
    if name not in _BORROWED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, other = _BORROWED[name].partition(":")
    return getattr(importlib.import_module(module), other or name)


def no_bars() -> None:
    """Switch off the progress bars of transformers, which are drawn for saving and loading weights."""
    from transformers.utils import logging as transformers_logging

    if not os.environ.get("XPO_DEBUG"):
        transformers_logging.disable_progress_bar()


def attention_of(model: Any) -> str:
    """Which attention a transformers model runs, such as ``sdpa``."""
    return str(model.config.get_text_config()._attn_implementation)


def uncompiled(model: Any) -> Any:
    """A model as it was before ``torch.compile``; any other one as it is."""
    return getattr(model, "_orig_mod", model)


def checkpoints(model: Any) -> bool:
    """Whether a transformers model computes its activations again for the gradient."""
    return bool(getattr(model, _newest(type(model), "is_activation_checkpointing", "is_gradient_checkpointing")))


def checkpoint_activations(model: Any, args: Any) -> None:
    """Let ``model`` compute its activations again for the gradient, as training ``args`` then say too."""
    # The second name goes with transformers 6; in some releases before it both exist.
    kept = {name for name in ("activation_checkpointing", "gradient_checkpointing") if hasattr(args, name)}
    for name in kept:
        setattr(args, name, True)
    options = getattr(args, f"{_newest(args, 'activation_checkpointing', 'gradient_checkpointing')}_kwargs")
    getattr(model, _newest(model, "activation_checkpointing_enable", "gradient_checkpointing_enable"))(options)


def _newest(owner: Any, *names: str) -> str:
    return next(name for name in names if hasattr(owner, name))


@contextmanager
def attending(model: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Let a transformers model attend by ``function``, registered as ``name``, for as long as the context lasts.

    Masks are made as for ``sdpa``.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, sdpa_mask)
    config = model.config.get_text_config()
    usual = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = usual


def block_mask(mask: Callable[..., Any], rows: int, width: int, device: Any) -> Any:
    """A FlexAttention block mask for ``rows`` rows of ``width`` positions, of a function of (row, head, query, key)."""
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(mask, rows, None, width, width, device=device)
