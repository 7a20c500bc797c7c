"""Where a request comes from, and how often one visitor, and one address, may do something."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque
from contextvars import ContextVar
from threading import Lock
from typing import TYPE_CHECKING

from app.app_errors import RequestError

if TYPE_CHECKING:
    from starlette.types import Scope

UNKNOWN = "unknown"
current_address: ContextVar[str] = ContextVar("current_address", default="")
"""The address of the request that is answered in this context; empty outside of one."""
SHARED = 4
"""Visitors behind one address, which a household or an office may share: it may do so many times as much as one."""
_MOST_KEYS = 10_000
_SECONDS = 60


def address_of(scope: Scope, *, behind_proxy: bool) -> str:
    """The address that a raw HTTP request comes from.

    Behind a proxy it is the last one of X-Forwarded-For, which the proxy itself wrote; what stands before it is the
    client's word. Else that header is not read.
    """
    if behind_proxy:
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        if forwarded:
            return forwarded[-1].decode("latin-1").rpartition(",")[2].strip() or UNKNOWN
    return str((scope.get("client") or (UNKNOWN,))[0])


def network_of(address: str) -> str:
    """What one visitor has of addresses: an IPv4 address, or the first half of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


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
