"""Work that takes the whole machine, done one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from app.app_errors import RequestError

WAIT = 5.0
"""Seconds to wait for a turn: who waits holds one of the few threads that answer marks, too."""


@contextmanager
def in_turn(turn: Lock, doing: str) -> Iterator[None]:
    """Hold `turn` while the block runs. Raises RequestError where others, `doing` the same, hold it too long."""
    if not turn.acquire(timeout=WAIT):
        raise RequestError(f"others are {doing} at this moment: try again in a minute")
    try:
        yield
    finally:
        turn.release()
