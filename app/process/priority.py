"""The priority of processes that nobody waits for at a page."""

from __future__ import annotations

import os
from contextlib import suppress

import psutil

_BELOW_NORMAL = 0x4000
"""What Windows calls a lower priority (psutil.BELOW_NORMAL_PRIORITY_CLASS exists only there)."""


def lower_priority(pid: int) -> None:
    """Let a process have the processor where others leave it. One that is gone, or a system that does not let it,
    stays as it is."""
    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        process.nice(min(19, int(process.nice()) + 10) if os.name == "posix" else _BELOW_NORMAL)
