"""Memory and disk of an app that strangers search, each once and in a session of its own.

`python -m tests.benchmarks.anonymous [--searches 10000] [--json]`: prints the app's memory and the size of its data
folder after each tenth of the searches, and by how much both grew in the second half. Searches that nobody marked are
deleted once a minute, all but the newest 100. Ends with exit code 1 if either grew by more than 50 MB, or if a search
failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.benchmarks.load import call, caption
from tests.conftest import RunningApp, start_app

AT_ONCE, PARTS, MOST_MB = 8, 10, 50.0


def megabytes(app: RunningApp) -> tuple[float, float]:
    """The app's memory, and what its data folder takes."""
    disk = sum(path.stat().st_size for path in app.data_dir.rglob("*") if path.is_file())
    return psutil.Process(app.process.pid).memory_info().rss / 1e6, disk / 1e6


async def search(app: RunningApp, numbers: range) -> None:
    """One search for each number, some at a time. Raises what a search raised."""
    waiting = iter(numbers)

    async def work() -> None:
        async with httpx.AsyncClient(base_url=app.url, timeout=120) as http:
            for number in waiting:
                asked = [caption(number, number), None, "", 24, {}, 0.5, 0.5]
                found = await call(http, f"stranger-{number}", "search", asked)
                assert len(found["candidates"]) == 24

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


def measure(searches: int) -> dict[str, Any]:
    memory, disk, began = list[float](), list[float](), time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        app = start_app(Path(scratch) / "data", UPPERSON_KEPT_SEARCHES="100")
        try:
            for part in range(PARTS):
                asyncio.run(search(app, range(part * searches // PARTS, (part + 1) * searches // PARTS)))
                for sizes, size in zip((memory, disk), megabytes(app), strict=True):
                    sizes.append(round(size, 1))
        finally:
            app.stop()
    half = PARTS // 2 - 1
    return {
        "searches": searches,
        "seconds": round(time.monotonic() - began, 1),
        "memory_mb": memory,
        "disk_mb": disk,
        "memory_grew_mb": round(memory[-1] - memory[half], 1),
        "disk_grew_mb": round(disk[-1] - disk[half], 1),
    }


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--searches", type=int, default=10_000)
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    found = measure(given.searches)
    print(json.dumps(found) if given.json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    return 1 if max(found["memory_grew_mb"], found["disk_grew_mb"]) > MOST_MB else 0


if __name__ == "__main__":
    sys.exit(main())
