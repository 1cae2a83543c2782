"""The only file that touches what a library does not export or prints unasked."""

from __future__ import annotations

import logging
import os
import warnings

__all__ = ["quiet"]

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
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|transformers|peft|accelerate|trl)\b")
