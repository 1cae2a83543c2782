"""The directory of a suite: whether it can be used, and that one process at a time does."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xpo.bench.store import JOB, LOG, RESULT, START, SUITE, half_written
from xpo.errors import SettingError
from xpo.train.place import check_place

#: Seconds to wait for processes of an earlier start, which end by themselves, to let go of the directory.
_PATIENCE = 15.0


def check_directory(path: Path) -> None:
    """Refuse a directory that holds something else than a suite.

    Raises:
        SettingError: it is no directory, cannot be written, or is not empty and no suite.
    """
    check_place(path.absolute())
    if not path.exists():
        return
    with usable(path):
        there = {one.name for one in path.iterdir() if one.name != ".lock" and not half_written(one)}
    if there and SUITE not in there and not (there == {START} and _is_ours(path / START)):
        raise SettingError(
            f"--output_dir {path} holds {', '.join(sorted(there)[:3])} and no suite; choose an empty or a new directory"
        )


def _is_ours(start: Path) -> bool:
    """Whether a folder is what a suite leaves that was stopped while it examined the start."""
    ours = (JOB, LOG, RESULT)
    return start.is_dir() and all(
        one.name in ours or one.name.startswith("attempt-") or half_written(one) for one in start.iterdir()
    )


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """A context in which a directory that cannot be written, or is gone, is one message.

    Raises:
        SettingError: naming the file and what is wrong.
    """
    try:
        yield
    except OSError as error:
        root, file = path.absolute(), Path(str(error.filename)).absolute()
        if error.filename is None or root not in (file, *file.parents):
            raise
        raise SettingError(
            f"--output_dir {path}: {error.filename}: {error.strerror}; free the way or choose another"
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[tuple[int, ...]]:
    """A context in which no other suite runs in a directory; what to hand on to processes, so that it includes them.

    Raises:
        SettingError: another one is at work there.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        yield ()
        return
    made = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    file = path / ".lock"
    number = os.open(file, os.O_RDWR | os.O_CREAT)
    until = time.monotonic() + _PATIENCE
    try:
        while True:
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= until:
                    raise SettingError(
                        f"--output_dir {path}: another xpo bench is at work there; wait for it"
                    ) from None
                time.sleep(0.1)
        yield (number,)
    finally:
        os.close(number)
        if not (path / SUITE).exists():  # nothing came of it
            shutil.rmtree(path / START, ignore_errors=True)
            with suppress(OSError):
                file.unlink()
                if made:
                    path.rmdir()
