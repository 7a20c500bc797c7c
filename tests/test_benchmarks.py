"""Nothing else runs the measurements of tests/benchmarks: each can at least be imported."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.memory import peak_resident, resident

MODULES = sorted(path.stem for path in (Path(__file__).parent / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_it_can_be_imported(name: str) -> None:
    assert importlib.import_module(f"tests.benchmarks.{name}").__doc__


def test_the_peak_is_this_processes_own_and_in_bytes() -> None:
    before = resident()
    held = bytearray(b"x") * 300_000_000
    assert resident() - before > 290_000_000
    del held
    assert peak_resident() - resident() > 250_000_000
    child = [sys.executable, "-c", "from tests.benchmarks.memory import peak_resident; print(peak_resident())"]
    asked = subprocess.run(child, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True)
    assert int(asked.stdout) < 100_000_000  # getrusage's greatest would be at least this process's
