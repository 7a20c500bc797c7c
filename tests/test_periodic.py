from __future__ import annotations

import threading
import time

import pytest

from app.periodic import Periodic
from store import GalleryError
from tests.factories import until


def test_work_is_repeated_after_any_fault(caplog: pytest.LogCaptureFixture) -> None:
    faults = iter([GalleryError("no room"), ZeroDivisionError("a bug")])
    rounds, others = list[int](), list[int]()

    def work() -> None:
        rounds.append(1)
        fault = next(faults, None)
        if fault is not None:
            raise fault

    loop = Periodic(0.01, work, lambda: others.append(1), name="counting")
    until(lambda: len(rounds) >= 4)
    loop.close()
    assert "counting failed, trying again: no room" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert len(others) >= 3, "a fault of one keeps no other from its turn"
    assert not any(thread.name == "counting" for thread in threading.enumerate())


def test_closing_waits_for_the_work_under_way_and_starts_no_other() -> None:
    entered, leave, done = threading.Event(), threading.Event(), list[str]()

    def slow() -> None:
        entered.set()
        assert leave.wait(30)
        done.append("slow")

    loop = Periodic(0.01, slow, lambda: done.append("next"), name="slow")
    assert entered.wait(30)
    closing = threading.Thread(target=loop.close)
    closing.start()
    time.sleep(0.05)
    assert closing.is_alive()
    leave.set()
    closing.join(30)
    assert done == ["slow"]
