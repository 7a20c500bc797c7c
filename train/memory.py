"""Memory of a process: what is freed goes back to the system, or is used again. Only glibc needs to be asked for it."""

from __future__ import annotations

import ctypes
import os
import platform

_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of glibc's malloc.h."""
_ARENA_MAX = -8
"""M_ARENA_MAX of glibc's malloc.h."""
_LARGE_BYTES = 1_000_000


def return_large_blocks() -> None:
    """Make glibc give blocks of 1 MB and more back when they are freed.

    By default it learns from the first large picture that is freed to keep such blocks, up to 32 MB each, and after
    many pictures at once keeps gigabytes. A training would be slower by it: it frees many such blocks in every step.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)


def keep_little() -> None:
    """Of a process that trains, before it computes anything: few kernels are kept, and every thread may use what
    another one freed.

    By default oneDNN keeps the kernels of 1,024 shapes; with captions of every length that is 0.4 GB, and no quicker.
    And glibc gives each thread an arena of its own, autograd's too.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    if (libc := _glibc()) is not None:
        libc.mallopt(_ARENA_MAX, 1)


def give_back_memory() -> None:
    """Return freed memory to the system now."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
