"""Memory of large blocks goes back to the system as soon as it is free."""

from __future__ import annotations

import ctypes
import sys

_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of glibc's malloc.h."""
_LARGE_BYTES = 1_000_000


def return_large_blocks() -> None:
    """Make glibc give blocks of 1 MB and more back when they are freed. Elsewhere nothing happens.

    By default it learns from the first large picture that is freed to keep such blocks, up to 32 MB each, and after
    many pictures at once keeps gigabytes.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
