"""Attacks: everything here has the marker `abuse`. `python -m pytest -m abuse` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RunningApp, start_app


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.abuse)


@pytest.fixture(scope="package")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """One app for all attacks that it should survive; no fault of it may stand in its log."""
    running = start_app(tmp_path_factory.mktemp("attacked") / "data")
    yield running
    log = running.log()
    running.stop()
    assert "Traceback" not in log, log[-5000:]
