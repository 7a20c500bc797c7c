"""How often one visitor, and one address, may do something."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from threading import Lock

from app.app_errors import RequestError
from app.web.visitors import network_of

SHARED = 4
"""Visitors behind one address, which a household or an office may share: it may do so many times as much as one."""
_MOST_KEYS = 10_000
_SECONDS = 60


class Limit:
    """At most `most` a minute for each user, and `SHARED` times as many for each address; 0 means no limit."""

    def __init__(self, most: int, what: str) -> None:
        self._most, self._what = most, what
        self._counts: OrderedDict[str, deque[tuple[float, int]]] = OrderedDict()
        self._lock = Lock()

    def count(self, user: str, address: str = "", *, amount: int = 1, now: float | None = None) -> None:
        """Counts `amount` more. Raises RequestError when it is too much; then it does not count."""
        if not self._most:
            return
        now = time.monotonic() if now is None else now
        keys = {f"user {user}": self._most} if user else {}
        if address:
            keys[f"address {network_of(address)}"] = SHARED * self._most
        with self._lock:
            counts = {key: self._recent(key, now) for key in keys}
            for key, most in keys.items():
                if sum(number for _, number in counts[key]) + amount > most:
                    wait = int(counts[key][0][0] + _SECONDS - now) + 1 if counts[key] else _SECONDS
                    whose = "" if key.startswith("user") else " from one address"
                    raise RequestError(f"at most {most:,} {self._what} a minute{whose}: try again in {wait} seconds")
            for key in keys:
                counts[key].append((now, amount))

    def _recent(self, key: str, now: float) -> deque[tuple[float, int]]:
        """What this key did in the last minute; beyond `_MOST_KEYS` keys, who was not seen for longest is forgotten."""
        times = self._counts.setdefault(key, deque())
        self._counts.move_to_end(key)
        while len(self._counts) > _MOST_KEYS:
            self._counts.popitem(last=False)
        while times and times[0][0] <= now - _SECONDS:
            times.popleft()
        return times
