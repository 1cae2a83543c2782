"""The reference cache: log-probabilities a frozen model gave to completions, kept for the runs that ask for them again.

A completion is known by its tokens and those of its prompt, and what computed it by an *identity*: whatever is not in
there must not change a log-probability. Algorithms and their settings are not, so a second one over the same data
finds all that the first one computed. No trouble with the disk ends a run; it costs only what the cache would save.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b, sha256
from pathlib import Path

import torch

from xpo.models.shards import KEY_BYTES
from xpo.models.shelf import Shelf
from xpo.models.store import cache_limit, cache_root, clear, contents, leave_note, place, shrink

__all__ = ["LogpCache", "cache_limit", "cache_root", "clear", "contents", "identify", "key"]

#: What has not been written is written when it is this many tokens, or this many seconds after the last time.
TOKENS, SECONDS = 2_000_000, 60.0


def identify(*parts: str) -> str:
    """What decides a log-probability besides the tokens, as 64 hexadecimal digits.

    That is the model's fingerprint and everything else that is fed in another way or computed in another precision.
    """
    return sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()


def key(prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> bytes:
    """By what a completion is known: 16 bytes that depend on its tokens, its prompt's, and where the prompt ends."""
    count = len(prompt_ids) + len(completion_ids)
    words = struct.pack(f"<{count + 1}q", len(prompt_ids), *prompt_ids, *completion_ids)
    return blake2b(words, digest_size=KEY_BYTES).digest()


class LogpCache:
    """Log-probabilities of completions under one frozen model.

    Args:
        identity: what computes them, as :func:`identify` makes it.
        folder: the root of all caches, as of :func:`cache_root`; None keeps this one in memory only.
        limit_bytes: what all caches below ``folder`` may take together.
        describe: what `xpo cache` is to tell about this one; ``model`` is the model's name.

    Attributes:
        hits, misses: how often ``get`` found something, and how often not.
        written: how many completions were written to the disk.
        problems: a sentence on each thing that went wrong with the disk, for the caller to show.
    """

    def __init__(
        self, identity: str, *, folder: Path | None, limit_bytes: int, describe: Mapping[str, str] | None = None
    ) -> None:
        if not re.fullmatch("[0-9a-f]{32,}", identity):
            raise ValueError(f"an identity is at least 32 hexadecimal digits, not {identity!r}; identify() makes one")
        self.hits = self.misses = self.written = 0
        self.problems: list[str] = []
        self._identity = identity
        self._root, self._limit, self._about = folder, limit_bytes, dict(describe or {})
        self._fresh: dict[bytes, torch.Tensor] = {}  # not on the disk yet; all there is without a disk
        self._tokens = 0
        self._last = time.monotonic()
        self._writable = True
        self._shelf = None if folder is None else Shelf(place(folder, identity), identity, self.problems.append)

    def __contains__(self, key: bytes) -> bool:
        """Whether it is known; asking counts neither as a hit nor as a miss."""
        return key in self._fresh or (self._shelf is not None and key in self._shelf)

    def get(self, key: bytes) -> torch.Tensor | None:
        """(tokens,) float32 log-probabilities of the completion known by ``key``, on the CPU; None when not known."""
        found = self._fresh.get(key)
        if found is not None:
            self.hits += 1
            return found.clone()
        data = None if self._shelf is None else self._shelf.read(key)
        if data is None:
            self.misses += 1
            return None
        self.hits += 1
        return torch.frombuffer(bytearray(data), dtype=torch.float32) if data else torch.empty(0)

    def put(self, key: bytes, logps: torch.Tensor) -> None:
        """Keep the log-probabilities (tokens,) of a completion, as float32. What is known already stays as it is.

        Raises:
            ValueError: they are not one row of numbers.
        """
        if logps.ndim != 1 or bool(logps.isnan().any()):
            raise ValueError(f"log-probabilities of a completion are numbers in one row, not {logps}")
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key is {KEY_BYTES} bytes, as key() makes them, not {key!r}")
        if key in self:
            return
        self._fresh[key] = logps.detach().to("cpu", torch.float32, copy=True)
        self._tokens += len(logps)
        if self._tokens >= TOKENS or time.monotonic() - self._last >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what has not been written. If that cannot be done, it stays in memory, as all that follows."""
        if self._shelf is None or self._root is None or not self._writable or not self._fresh:
            return
        try:
            leave_note(self._shelf.folder, self._identity, self._about)
            path = self._shelf.add({key: logps.numpy() for key, logps in self._fresh.items()})
        except OSError as error:
            self._writable = False
            self.problems.append(
                f"the reference cache in '{self._root}' cannot be written ({error.strerror or error}); this run keeps "
                "in memory what it computes; set XPO_CACHE to a folder elsewhere to have it kept for the next one"
            )
            return
        self.written += len(self._fresh)
        self._fresh.clear()
        self._tokens, self._last = 0, time.monotonic()
        with suppress(OSError):
            shrink(self._root, self._limit, path)

    def refresh(self) -> None:
        """Write, and take notice of what other processes have written since the start."""
        self.flush()
        if self._shelf is not None:
            self._shelf.reopen()

    def close(self) -> None:
        """Write, and close all files. The cache is of no use afterwards."""
        self.flush()
        if self._shelf is not None:
            self._shelf.close()
