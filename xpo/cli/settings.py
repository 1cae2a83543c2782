"""Settings of a command as its help shows them: a flag, what it is for, and its default."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpo.train.vocabulary import Slot


def listed(slots: Mapping[str, Slot], about: Mapping[str, str] | None = None) -> str:
    """A paragraph a setting, in the order given.

    Args:
        about: setting -> what to say of it in place of its own help, which is about another command.
    """
    lines = []
    for name, slot in slots.items():
        metadata = slot.field.metadata
        text = " ".join(str((about or {}).get(name) or metadata.get("help", "")).replace("%%", "%").split())
        text = f"{text.rstrip('.')} {_shown(slot.default)}".strip()
        flag = metadata.get("flag", name)
        lines += textwrap.wrap(text or "-", 110, initial_indent=f"  --{flag:<24} ", subsequent_indent=" " * 29)
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    return "" if default in (None, "", []) else f"[{default}]"
