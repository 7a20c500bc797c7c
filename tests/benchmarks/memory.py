"""Memory of a process, for the measurements beside this file.

By /proc/PID/status (Linux): the greatest of `getrusage` would hold what the parent process needed, across exec.
"""

from __future__ import annotations

from pathlib import Path


def resident() -> int:
    """Bytes now."""
    return _status("VmRSS")


def peak_resident(process: int | None = None) -> int:
    """Bytes at most since this program, or that of another `process`, began."""
    return _status("VmHWM", process)


def _status(name: str, process: int | None = None) -> int:
    lines = Path("/proc", str(process or "self"), "status").read_text(encoding="utf-8").splitlines()
    amount, unit = next(line for line in lines if line.startswith(f"{name}:")).split()[1:]
    assert unit == "kB"  # as the kernel writes 1024 bytes
    return int(amount) * 1024
