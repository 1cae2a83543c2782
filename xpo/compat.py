"""The only file that touches what a library does not export or prints unasked."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers.integrations import get_available_reporting_integrations
    from transformers.trainer_utils import EvalLoopOutput, get_last_checkpoint

__all__ = [
    "EvalLoopOutput",
    "attention_of",
    "block_mask",
    "get_available_reporting_integrations",
    "get_last_checkpoint",
    "no_bars",
    "quiet",
]

#: Names that transformers documents but does not export at the top, and where they live.
_BORROWED = {
    "EvalLoopOutput": "transformers.trainer_utils",
    "get_available_reporting_integrations": "transformers.integrations",
    "get_last_checkpoint": "transformers.trainer_utils",
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
    return getattr(importlib.import_module(_BORROWED[name]), name)


def no_bars() -> None:
    """Switch off the progress bars of transformers, which are drawn for saving and loading weights."""
    from transformers.utils import logging as transformers_logging

    if not os.environ.get("XPO_DEBUG"):
        transformers_logging.disable_progress_bar()


def attention_of(model: Any) -> str:
    """Which attention a transformers model runs, such as ``sdpa``."""
    return str(model.config._attn_implementation)


def block_mask(mask: Callable[..., Any], rows: int, width: int, device: Any) -> Any:
    """A FlexAttention block mask for ``rows`` rows of ``width`` positions, of a function of (row, head, query, key)."""
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(mask, rows, None, width, width, device=device)
