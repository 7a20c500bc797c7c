"""Memory of this process, for the measurements beside this file.

By /proc/self/status (Linux): the greatest of `getrusage` would hold what the parent process needed, across exec.
"""

from __future__ import annotations

from pathlib import Path


def resident() -> int:
    """Bytes now."""
    return _status("VmRSS")


def peak_resident() -> int:
    """Bytes at most since this program began."""
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    amount, unit = next(line for line in lines if line.startswith(f"{name}:")).split()[1:]
    assert unit == "kB"  # as the kernel writes 1024 bytes
    return int(amount) * 1024
