"""The shards of one identity: finding a completion among them, adding to them, joining them when they are many.

Any number of processes read and write the same folder without locks. Files never change, each is written by one
process under a name of its own, and one goes only when what it holds is on the disk in another.
"""

from __future__ import annotations

import os
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import numpy as np

from xpo.models.shards import ASIDE, KEY_BYTES, PARTIAL, SHARD, Damaged, Floats, Shard, write

#: Files below this size are small; more than MANY of them are joined, as far as they fit into one of JOINED bytes.
SMALL, MANY, JOINED = 32 << 20, 64, 128 << 20
#: Files open at most: a process is seldom allowed more than 1024. Joined, these hold billions of tokens.
MOST = 512
#: Seconds after which what a killed process left half-written is removed, and what was set aside.
STALE = 86400.0
_ATTEMPTS = 5


class Index:
    """Which row of which shard holds a completion.

    Keys are digests, as good as random: their first halves, sorted, find all but the rarest at once, at 16 bytes each.
    """

    def __init__(self, shards: Sequence[Shard] = ()) -> None:
        self.shards = list(shards)
        self._added: dict[bytes, tuple[Shard, int]] = {}
        keys = np.concatenate([np.empty((0, KEY_BYTES), np.uint8), *(shard.keys for shard in shards)])
        halves = keys.view("<u8")[:, 0]
        self._order = halves.argsort()
        self._sorted = halves[self._order]
        self._starts = np.cumsum([0, *(len(shard.keys) for shard in shards)]).tolist()

    def find(self, key: bytes) -> tuple[Shard, int] | None:
        """The shard and the row."""
        half = np.uint64(int.from_bytes(key[:8], "little"))
        for place in self._order[self._sorted.searchsorted(half) : self._sorted.searchsorted(half, "right")].tolist():
            number = bisect_right(self._starts, place) - 1
            shard, row = self.shards[number], place - self._starts[number]
            if shard.keys[row].tobytes() == key:
                return shard, row
        return self._added.get(key)

    def add(self, shard: Shard) -> None:
        """Another shard, without sorting all of them again."""
        self.shards.append(shard)
        self._added.update((key.tobytes(), (shard, row)) for row, key in enumerate(shard.keys))

    def close(self) -> None:
        """Close all shards."""
        for shard in self.shards:
            shard.close()


class Shelf:
    """The shards of ``identity`` in ``folder``, which need not exist.

    Args:
        report: called with a sentence about each file that cannot be used.
    """

    def __init__(self, folder: Path, identity: str, report: Callable[[str], None]) -> None:
        self.folder = folder
        self._identity = identity
        self._report = report
        self._index = Index()
        self._added = 0  # files since they were listed
        self.reopen()

    def __contains__(self, key: bytes) -> bool:
        return self._index.find(key) is not None

    def read(self, key: bytes) -> bytes | None:
        """Log-probabilities of a completion, as float32; None when there are none."""
        while (found := self._index.find(key)) is not None:
            shard, row = found
            try:
                return shard.read(row)
            except (Damaged, OSError) as error:
                self._exclude(shard.path, error)
                shard.close()
                self._index = Index([other for other in self._index.shards if other is not shard])
        return None

    def add(self, entries: Mapping[bytes, Floats]) -> Path:
        """Put completions on the disk; the new file.

        Raises:
            OSError: that cannot be done.
        """
        path = write(self.folder, self._identity, entries)
        if (shard := self._open(path)) is not None:
            self._index.add(shard)
        self._added += 1
        # Others join this process's files too; what it holds open of them would pile up all the same.
        if self._join() or self._added > MANY:
            self.reopen()
        return path

    def reopen(self) -> None:
        """Read what the folder holds now."""
        for path in [*self._files(PARTIAL), *self._files(ASIDE)]:
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - STALE:
                    path.unlink()
        self._join()
        self._added = 0
        for _ in range(_ATTEMPTS):
            self._index.close()
            paths = self._files(SHARD)[:MOST]
            self._index = Index([shard for shard in map(self._open, paths) if shard is not None])
            if all(path.exists() for path in paths):
                break  # else another process has joined files: what they held is in one that was not listed
        for shard in reversed(self._index.shards):  # their order stays
            with suppress(OSError):  # a folder that can only be read
                os.utime(shard.path)  # in use: what is least recently used is removed first

    def close(self) -> None:
        """Close all files."""
        self._index.close()
        self._index = Index()

    def _files(self, ending: str) -> list[Path]:
        """The files whose names end so, last used first."""
        found = []
        with suppress(OSError):  # something else is in place of the folder
            for path in self.folder.glob(f"*{ending}"):
                with suppress(FileNotFoundError):
                    found.append((-path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found)]

    def _open(self, path: Path) -> Shard | None:
        try:
            return Shard(path, self._identity)
        except FileNotFoundError:  # joined or removed by another process in this very moment
            return None
        except (Damaged, OSError) as error:
            self._exclude(path, error)
            return None

    def _exclude(self, path: Path, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) else error
        self._report(f"'{path}' in the reference cache cannot be used ({reason}); what it held is computed again")
        if isinstance(error, Damaged):
            with suppress(OSError):
                os.utime(path.rename(path.with_suffix(ASIDE)))

    def _join(self) -> bool:
        """Make one file of small ones if they are many; whether it did. Without room for that all stays as it is.

        Two processes that join the same files write the same under the same name, so that nothing is there twice.
        """
        with suppress(OSError):
            files = [(path.stat().st_size, path) for path in self._files(SHARD)]
            small = sorted((size, path) for size, path in files if size < SMALL)
            if len(small) <= MANY:
                return False
            paths, total = [], 0
            for size, path in small:
                total += size
                if total <= JOINED:
                    paths.append(path)
            entries = self._contents(paths)
            if entries is None:
                return False
            name = sha256(" ".join(sorted(path.name for path in paths)).encode()).hexdigest()[:32]
            write(self.folder, self._identity, entries, name)
            for path in paths:
                path.unlink(missing_ok=True)
            return True
        return False

    def _contents(self, paths: Sequence[Path]) -> dict[bytes, Floats] | None:
        """All that some files hold; None when one of them is not to be had."""
        entries = {}
        for path in paths:
            shard = self._open(path)
            if shard is None:
                return None
            try:
                for row, key in enumerate(shard.keys):
                    entries[key.tobytes()] = np.frombuffer(shard.read(row), "<f4")
            except Damaged as error:
                self._exclude(path, error)
                return None
            finally:
                shard.close()
        return entries
