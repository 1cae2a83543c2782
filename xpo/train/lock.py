"""One run at a time in an output directory: two would take turns at the same files, and both would call it a success.

The lock is the system's own, on a file that says who holds it, so that a process that dies gives it up. Where a file
system has no locks, and on Windows, there is none, and all is as it would be without.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from xpo.errors import SettingError
from xpo.train.machine import is_main

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: There while a run is on its way. Uploads to the hub leave out names with this beginning.
LOCK = "_run.lock"
#: How often it is tried: the file may go, with the directory, between being made and being locked.
_ATTEMPTS = 20


class Lock:
    """The right to write to the directory ``path``: :meth:`take` it, and leave the context to give it up.

    Only rank 0 takes it; for the others all of this does nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is None:
            return
        with suppress(OSError):  # gone already, or it holds the files of the run, as it should
            (self.path / LOCK).unlink()
            self.path.rmdir()
        os.close(self._file)
        self._file = None

    def check(self) -> None:
        """Refuse a directory in which a run is on its way, without writing anything.

        Raises:
            SettingError: there is one; the message names its process.
        """
        if fcntl is None or not is_main():
            return
        with suppress(FileNotFoundError, PermissionError, NotADirectoryError):
            file = os.open(self.path / LOCK, os.O_RDWR)
            try:
                self._lock(file, fcntl.LOCK_SH)
            finally:
                os.close(file)

    def take(self) -> None:
        """Make the directory, and hold it until the context is left or the process dies.

        Raises:
            SettingError: another run holds it, or it cannot be made.
        """
        if fcntl is None or not is_main():
            return
        for _ in range(_ATTEMPTS):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                file = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            except FileNotFoundError:  # another run has just removed the directory it had made to no end
                continue
            except OSError as error:
                raise SettingError(
                    f"--output_dir {self.path}: {error.strerror}; choose another --output_dir"
                ) from error
            try:
                self._lock(file, fcntl.LOCK_EX)
                current = os.path.samestat(os.fstat(file), os.stat(self.path / LOCK))
            except BaseException as error:
                os.close(file)
                if isinstance(error, FileNotFoundError):
                    continue
                raise
            if current:
                os.truncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
                self._file = file
                return
            os.close(file)  # of a run that has just ended and removed it: others would lock a new one
        raise SettingError(f"--output_dir {self.path}: other processes make and remove it; choose another --output_dir")

    def _lock(self, file: int, kind: int) -> None:
        assert fcntl is not None
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = os.pread(file, 1000, 0).decode(errors="replace") or "another process"
            raise SettingError(
                f"--output_dir {self.path}: a run is on its way there ({who}); choose another --output_dir, or wait "
                "for its end"
            ) from error
        except OSError:
            return  # a file system without locks
