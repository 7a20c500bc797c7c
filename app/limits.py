"""How often one visitor may do something."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from threading import Lock

from app.errors import RequestError

_MOST_VISITORS = 10_000


class Limit:
    """At most `most` times a minute for each user; 0 means as often as they like."""

    def __init__(self, most: int, what: str) -> None:
        self._most, self._what = most, what
        self._times: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = Lock()

    def count(self, user: str, now: float | None = None) -> None:
        """Counts one more. Raises RequestError when it is one too many; that one does not count."""
        if not self._most:
            return
        now = time.monotonic() if now is None else now
        with self._lock:
            times = self._times.setdefault(user, deque())
            self._times.move_to_end(user)
            while len(self._times) > _MOST_VISITORS:
                self._times.popitem(last=False)
            while times and times[0] <= now - 60:
                times.popleft()
            if len(times) >= self._most:
                wait = int(times[0] + 60 - now) + 1
                raise RequestError(f"at most {self._most} {self._what} a minute: try again in {wait} seconds")
            times.append(now)
