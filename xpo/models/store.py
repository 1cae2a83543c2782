"""Where reference caches lie, how large they may be together, what is in them, and removing them.

<root>/reference/<identity>/about.json          what computed the log-probabilities, for people
<root>/reference/<identity>/<unique>.safetensors
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import xpo
from xpo.errors import SettingError
from xpo.models.shards import ASIDE, PARTIAL, SHARD, Damaged, read_header

ABOUT = "about.json"
#: Bytes that all caches may take together.
LIMIT = 10 * 10**9

_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True)
class Stored:
    """The cache of one model.

    Attributes:
        identity: name of its folder.
        model: name of the model, "?" when nothing says it.
        completions, tokens: how many; those in several files count several times.
        size: bytes on the disk.
        used: when it was last written or opened, in seconds since 1970.
    """

    identity: str
    model: str
    completions: int
    tokens: int
    size: int
    used: float


def cache_root() -> Path:
    """``$XPO_CACHE``, else ``$XDG_CACHE_HOME/xpo``, else ``~/.cache/xpo``."""
    if given := os.environ.get("XPO_CACHE"):
        return Path(given).expanduser()
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "xpo"
    try:
        return Path.home() / ".cache" / "xpo"
    except RuntimeError:  # an account without a home, as some containers have
        return Path(tempfile.gettempdir()) / f"xpo-{os.getuid()}"


def cache_limit() -> int:
    """Bytes that all caches may take together: ``$XPO_CACHE_LIMIT``, such as ``5GB``, else 10 GB."""
    given = os.environ.get("XPO_CACHE_LIMIT", "").strip()
    if not given:
        return LIMIT
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", given.upper())
    if found is None:
        raise SettingError(f"XPO_CACHE_LIMIT is '{given}', which is no size; give one such as 5GB or 800MB")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** _UNITS[unit])


def place(root: Path, identity: str) -> Path:
    """Folder of the cache of ``identity``."""
    return root / "reference" / identity[:32]


def leave_note(folder: Path, identity: str, about: Mapping[str, str]) -> None:
    """Leave a note in a folder on what the log-probabilities in it are of.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / ABOUT).exists():
        return
    note = {**about, "created": datetime.now(UTC).isoformat(timespec="seconds"), "xpo": xpo.__version__}
    partial = folder / f"{uuid4().hex}{PARTIAL}"
    partial.write_text(json.dumps({**note, "identity": identity}, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, folder / ABOUT)


def contents(root: Path) -> list[Stored]:
    """All caches, the one used last first."""
    return sorted((_stored(folder) for folder in _folders(root)), key=lambda stored: -stored.used)


def clear(root: Path, identity: str | None = None, older_than_days: float | None = None) -> int:
    """Remove caches: all of them, that of ``identity`` (its folder's name), those not used for some days.

    Returns:
        Bytes that are free now. A run that is using a cache goes on with the files it has open.
    """
    latest = None if older_than_days is None else time.time() - 86400 * older_than_days
    freed = 0
    for folder in _folders(root):
        if identity not in (None, folder.name) or (latest is not None and _stored(folder).used > latest):
            continue
        for path, status in _files(folder):
            freed += _remove(path, status.st_size)
        with suppress(OSError):  # something of another origin lies there
            folder.rmdir()
    return freed


def shrink(root: Path, limit: int, keep: Path) -> None:
    """Remove shards, least recently used first, until all are within ``limit``; ``keep`` only when too large alone."""
    found = [(path, status) for folder in _folders(root) for path, status in _files(folder) if path.suffix == SHARD]
    total = sum(status.st_size for _, status in found)
    # False sorts before True: what is to be kept comes last.
    for path, status in sorted(found, key=lambda item: (item[0] == keep, item[1].st_mtime_ns)):
        if total <= limit:
            break
        total -= _remove(path, status.st_size)


def _folders(root: Path) -> Iterator[Path]:
    """Folders that hold a cache."""
    for folder in sorted((root / "reference").glob("*")):
        if folder.is_dir() and not folder.is_symlink() and _files(folder):
            yield folder


def _files(folder: Path) -> list[tuple[Path, os.stat_result]]:
    """The files that are xpo's, and nothing else that may lie there."""
    found = []
    for path in sorted(folder.glob("*")):
        if path.name == ABOUT or path.suffix in (SHARD, PARTIAL, ASIDE):
            with suppress(FileNotFoundError):  # other processes come and go
                found.append((path, path.stat()))
    return found


def _stored(folder: Path) -> Stored:
    completions = tokens = 0
    files = _files(folder)
    for path, _ in files:
        if path.suffix == SHARD:
            with suppress(Damaged, OSError), path.open("rb") as file:
                header = read_header(file)
                completions, tokens = completions + header.completions, tokens + header.tokens
    model = "?"
    with suppress(OSError, ValueError, LookupError, TypeError):
        model = str(json.loads((folder / ABOUT).read_text(encoding="utf-8"))["model"])
    size = sum(status.st_size for _, status in files)
    return Stored(folder.name, model, completions, tokens, size, max(status.st_mtime for _, status in files))


def _remove(path: Path, size: int) -> int:
    try:
        path.unlink()
    except OSError:
        return 0
    return size
