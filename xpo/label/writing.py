"""The file that is written and the one beside it, which says how far it is: killed at any moment, work goes on there.

Rows of some prompts are written out first, then the file beside them is replaced as a whole. What stands behind the
bytes it vouches for, a half-written line perhaps, belongs to prompts that are labelled again, and is cut off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xpo.errors import DataError, SettingError
from xpo.train.output import write_text

#: Behind the name of the output. No suffix of data: a folder of data sets must not take it for one.
BESIDE = ".label"
#: Settings that do not change what is written, and that nobody notes: the address of a server may hold a password.
FREE = frozenset(
    {"output", "overwrite", "batch_size", "judge_url", "judge_timeout", "judge_retries", "judge_concurrency"}
)


@dataclass
class Progress:
    """How far an output is.

    Attributes:
        version: of xpo.
        settings: of the command, but for those that change nothing.
        data: ``origin``, ``fingerprint`` and number of the ``rows`` that are labelled.
        done: prompts whose rows are written.
        size: bytes of them.
        finished: whether that is all.
        outcome, judge: counts so far.
    """

    version: str
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    done: int = 0
    size: int = 0
    finished: bool = False
    outcome: Mapping[str, Any] = field(default_factory=dict)
    judge: Mapping[str, Any] = field(default_factory=dict)


class Output:
    """A file of rows that can be gone on with. Nothing is touched before the first :meth:`append`."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path, self.progress = path, progress
        self._begun = False

    def append(
        self,
        rows: Sequence[Mapping[str, Any]],
        prompts: int,
        outcome: Mapping[str, Any],
        judge: Mapping[str, Any],
    ) -> None:
        """Write the rows of so many further prompts, and note that they are done, with the counts as they are now."""
        try:
            if not self._begun:
                self._begin()
            # What is no character cannot be written as it is, and JSON has an escape for it.
            text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
            data = text.encode("utf-8", errors="backslashreplace")
            with self.path.open("ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise SettingError(f"--output {self.path}: {error.strerror or error}") from error
        self.progress.done += prompts
        self.progress.size += len(data)
        self.progress.outcome, self.progress.judge = outcome, judge
        self._note()

    def finish(self) -> None:
        """All prompts are labelled."""
        self.progress.finished = True
        self._note()

    def _begin(self) -> None:
        if not self.progress.done:
            self._note()  # first of all: a file without one beside it is a stranger's
            self.path.touch()
        os.truncate(self.path, self.progress.size)
        self._begun = True

    def _note(self) -> None:
        write_text(_beside(self.path), json.dumps(asdict(self.progress), indent=1, ensure_ascii=False) + "\n")


def claim(path: Path, overwrite: bool, wanted: Progress) -> Output:
    """The output of a command, from where an earlier start of the same one left it.

    Args:
        path: where, from :func:`checked`.
        wanted: settings and data of the command, at its beginning.

    Raises:
        SettingError: something is there that must not be replaced, or nothing can be written there.
    """
    if not path.exists():
        return Output(path, wanted)
    found = _read(path)
    if found is None:
        raise SettingError(f"--output {path} is there already, and xpo label did not write it; choose another --output")
    other = _difference(found, wanted)
    if not other and not found.finished:
        if path.stat().st_size < found.size:
            raise SettingError(
                f"--output {path} has lost rows: it is shorter than the {found.size} bytes that were written; remove "
                "it to begin again"
            )
        return Output(path, found)
    if overwrite:
        return Output(path, wanted)
    if other:
        raise SettingError(
            f"--output {path} was made with {other}; choose another --output, or replace it: --overwrite"
        )
    raise SettingError(
        f"--output {path} is finished ({found.outcome['rows']} rows); choose another --output, or label anew: "
        "--overwrite"
    )


def checked(output: str) -> Path:
    """The path of an output that can be written, as far as that can be told beforehand.

    Raises:
        SettingError: it cannot.
    """
    if not output:
        raise SettingError("--output is missing: the file to write, such as pairs.jsonl")
    path = Path(output).expanduser()
    if path.suffix != ".jsonl":
        raise SettingError(f"--output {output}: rows are written as JSON lines; give a name that ends in .jsonl")
    if not path.parent.is_dir():
        raise SettingError(f"--output {output}: the folder '{path.parent}' does not exist")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise SettingError(f"--output {output} cannot be written; choose another --output")
    return path


def _beside(path: Path) -> Path:
    return path.with_name(path.name + BESIDE)


def _read(path: Path) -> Progress | None:
    try:
        return Progress(**json.loads(_beside(path).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{_beside(path)} cannot be read ({error}); remove it and {path} to begin again") from error


def _difference(found: Progress, wanted: Progress) -> str:
    """What an output was made with, where that is not what is wanted now; empty where it is."""
    if found.version != wanted.version:
        return f"xpo {found.version}, and this is {wanted.version}"
    for name, value in wanted.settings.items():
        if (there := found.settings.get(name)) != value:
            return f"--{name} {_shown(there)}, and now it is {_shown(value)}"
    if found.data["fingerprint"] != wanted.data["fingerprint"]:
        return f"other rows of {found.data['origin']} than there are now"
    return ""


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "not given" if value is None else str(value)
