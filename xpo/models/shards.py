"""One file of the reference cache: log-probabilities of many completions, written once and never changed.

It is a safetensors file. For N completions of T tokens in all it holds

    keys   (N, 16) uint8    by what a completion is known
    ends   (N,)    int64    where its tokens end in ``logps``; they start where those of the completion before it end
    sums   (N,)    uint32   checksum of its key and its log-probabilities, which are read without the rest of the file
    logps  (T,)    float32

and in its metadata the version of this format and the identity of what computed them.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

VERSION = "1"
KEY_BYTES = 16
#: How the names end of a shard, of one that is being written, and of a file that turned out not to be one.
SHARD, PARTIAL, ASIDE = ".safetensors", ".partial", ".damaged"
#: Disk space left free: a checkpoint must not fail for the sake of a cache.
RESERVE = 1 << 30

_KINDS = {"keys": ("U8", 1), "ends": ("I64", 8), "sums": ("U32", 4), "logps": ("F32", 4)}
# Ours have some hundred bytes. A foreign file may begin with any number.
_LONGEST_HEADER = 1 << 16

Floats = NDArray[np.float32]


class Damaged(Exception):
    """A file is not a whole shard of the identity it should have."""


@dataclass(frozen=True)
class Header:
    """What a shard says of itself.

    Attributes:
        identity: what computed it.
        completions, tokens: how many.
        places: for each tensor its first byte in the file and the number of its bytes.
    """

    identity: str
    completions: int
    tokens: int
    places: Mapping[str, tuple[int, int]]


def read_header(file: BinaryIO) -> Header:
    """The header of a shard that is whole, as far as lengths can tell.

    Raises:
        Damaged: it is not.
    """
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if length > min(size - 8, _LONGEST_HEADER):
        raise Damaged("it is cut short, or no shard")
    try:
        fields = json.loads(file.read(length))
        about = fields.pop("__metadata__")
        if about["version"] != VERSION:
            raise Damaged(f"its format is version {about['version']}, not {VERSION}")
        completions, tokens = int(fields["keys"]["shape"][0]), int(fields["logps"]["shape"][0])
        shapes = {"keys": [completions, KEY_BYTES], "ends": [completions], "sums": [completions], "logps": [tokens]}
        places, at = {}, 8 + length
        for name, field in sorted(fields.items(), key=lambda item: item[1]["data_offsets"]):
            kind, width = _KINDS[name]
            count = width * int(np.prod(shapes[name]))
            start = at - 8 - length
            if field != {"dtype": kind, "shape": shapes[name], "data_offsets": [start, start + count]}:
                raise Damaged(f"'{name}' in it is not of the kind it should be")
            places[name] = at, count
            at += count
        if places.keys() != _KINDS.keys() or not completions:
            raise Damaged("it lacks something")
        identity = str(about["identity"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Damaged("it has no header of a shard") from error
    if at != size:
        raise Damaged("it is cut short")
    return Header(identity, completions, tokens, places)


class Shard:
    """A shard open for reading. Its keys are in memory; log-probabilities are read when they are asked for.

    They are read from the open file rather than mapped. Another process may remove the file: here that goes unnoticed,
    and over NFS it is an error, where touching a mapping would end the process.

    Attributes:
        path: the file.
        keys: (N, 16) uint8.

    Raises:
        Damaged: the file is not a whole shard of ``identity``.
        OSError: it cannot be read, or is gone.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        try:
            header = read_header(self._file)
            if header.identity != identity:
                raise Damaged("it was computed by another model")
            self._places = header.places
            self.keys = np.frombuffer(self._bytes("keys"), np.uint8).reshape(-1, KEY_BYTES)
            self._ends = np.frombuffer(self._bytes("ends"), "<i8")
            self._sums = np.frombuffer(self._bytes("sums"), "<u4")
            if (np.diff(self._ends, prepend=0) < 0).any() or self._ends[-1] != header.tokens:
                raise Damaged("its tokens do not add up")
        except BaseException:
            self.close()
            raise

    def read(self, row: int) -> bytes:
        """Log-probabilities of one completion, as float32.

        Raises:
            Damaged: they are not what was written.
            OSError: they cannot be read.
        """
        begin, end = int(self._ends[row - 1]) if row else 0, int(self._ends[row])
        data = os.pread(self._file.fileno(), 4 * (end - begin), self._places["logps"][0] + 4 * begin)
        if checksum(self.keys[row].tobytes(), data) != self._sums[row]:
            raise Damaged("its checksums do not fit its numbers")
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _bytes(self, name: str) -> bytes:
        begin, count = self._places[name]
        data = os.pread(self._file.fileno(), count, begin)
        if len(data) != count:
            raise Damaged("it is cut short")
        return data


def checksum(key: bytes, data: bytes) -> int:
    """Checksum of what is known by ``key``."""
    return crc32(data, crc32(key))


def write(folder: Path, identity: str, entries: Mapping[bytes, Floats], name: str | None = None) -> Path:
    """Write a shard, whole or not at all: it gets its name once all of it is on the disk.

    Raises:
        OSError: it cannot be written, or would all but fill the disk.
    """
    logps = [np.ascontiguousarray(values, "<f4") for values in entries.values()]
    sums = [checksum(key, values.tobytes()) for key, values in zip(entries, logps, strict=True)]
    tensors = {
        "keys": np.frombuffer(b"".join(entries), np.uint8).reshape(-1, KEY_BYTES),
        "ends": np.cumsum([len(values) for values in logps], dtype="<i8"),
        "sums": np.array(sums, "<u4"),
        "logps": np.concatenate(logps),
    }
    data = save(tensors, {"format": "xpo reference cache", "version": VERSION, "identity": identity})
    if shutil.disk_usage(folder).free < len(data) + RESERVE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    unique = uuid4().hex
    partial, path = folder / f"{unique}{PARTIAL}", folder / f"{name or unique}{SHARD}"
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    return path
