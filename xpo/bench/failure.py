"""Why a cell failed: from how its process ended and the last error in its log."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ERROR = re.compile(r"^(xpo: |[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit)\b)")
#: What colours a terminal or moves its cursor.
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_MEMORY = re.compile(
    r"out of memory|outofmemory|memoryerror|can't allocate memory|cannot allocate memory", re.IGNORECASE
)
#: As much of the end of a log as is looked at, in bytes, and as much of an error as is kept, in characters.
_TAIL, _LONGEST = 65536, 400

Failure = Mapping[str, Any]


def failure(log: Path, status: int) -> Failure:
    """``reason``, ``status`` (of a process that ended by itself), ``signal``, and whether it was ``out_of_memory``.

    Args:
        status: of the process; minus the number of the signal that ended it.
    """
    line = last_error(log)
    error = _ERROR.match(line)
    killed = _signal(-status) if status < 0 else None
    # Nobody else ends a process like this: the kernel does where memory is short.
    memory = bool(line and _MEMORY.search(line)) or killed == "SIGKILL"
    if killed is not None:
        told = f"ended by {killed}" + (": probably out of memory" if killed == "SIGKILL" else "")
        reason = f"{told}; {'last error' if error else 'its log ends with'}: {line}" if line else told
    elif error:
        reason = line.removeprefix("xpo: ")
    elif not status:
        reason = "it ended without a result"
    else:
        reason = f"no error in its log, which ends with: {line}" if line else "its log is empty"
    if memory and not _MEMORY.search(reason):
        reason = f"out of memory: {reason}"
    return {"reason": reason, "status": None if killed else status, "signal": killed, "out_of_memory": memory}


def shown(failed: Failure) -> str:
    """A failure in a line."""
    how = f" (exit status {failed['status']})" if failed["status"] is not None else ""
    return f"{failed['reason']}{how}"


def last_error(log: Path) -> str:
    """The last line of a log that looks like an error, else its last line; empty for an empty one."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
    except OSError:
        return ""
    said = [text for line in lines if (text := _printable(line))]
    found = [line for line in said if _ERROR.match(line)] or said
    return found[-1][:_LONGEST] if found else ""


def _printable(line: str) -> str:
    """A line as it may stand in a table: what a stranger's program prints must not steer terminals or pages."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in _ESCAPE.sub("", line)).split())


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
