"""Memory that goes back when it is freed: how the C library keeps the blocks that tensors on a CPU live in.

glibc takes blocks of up to 32 MiB from one heap, and of blocks as aligned as torch's it cannot use a freed one for the
next of the same size. The heap of a training process so grows to about twice what its tensors ever hold. Blocks that
are mapped one by one go back to the system as they are freed. Huge pages make up for what mapping them costs.
"""

from __future__ import annotations

import ctypes
import os
import sys

#: Blocks of at least so many bytes are mapped one by one; from this size on torch asks for huge pages.
MAPPED = 1 << 21
#: Bytes that the heap of smaller blocks may keep, so that it need not grow and shrink all the time.
KEPT = 1 << 26

_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of malloc.h


def steady_heap() -> bool:
    """Have freed memory given back from now on; whether the C library can be told to. Later calls change nothing.

    Torch reads about huge pages at its first tensor, so this is best called before torch is imported. What the user
    has set in the environment stays.
    """
    os.environ.setdefault(_HUGE_PAGES, "1")
    if "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return True
    try:
        library = ctypes.CDLL(None)
        told = library.mallopt
        library.gnu_get_libc_version  # noqa: B018 - other C libraries have a mallopt that does nothing
    except (OSError, TypeError, AttributeError):  # macOS, Windows, musl
        return False
    return sys.platform == "linux" and all(
        told(option, size) == 1
        for option, size in ((_TOP_PAD, MAPPED), (_TRIM_THRESHOLD, KEPT), (_MMAP_THRESHOLD, MAPPED))
    )
