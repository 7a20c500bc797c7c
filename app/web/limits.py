"""How often one visitor may do something."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from threading import Lock
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from app.app_errors import RequestError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from app.web.identity import Identity

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


class UploadLimit:
    """ASGI middleware that counts uploaded files, which fill the disk whether they are searched by or not.

    A visitor is told by the signed cookie, else by the address: behind a proxy the one that the proxy names last.
    """

    def __init__(self, app: ASGIApp, *, most: int, identity: Identity) -> None:
        self._app, self._identity, self._limit = app, identity, Limit(most, "uploads")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/upload"):
            try:
                self._limit.count(self._identity.visitor(scope) or _address(scope))
            except RequestError as error:
                await JSONResponse({"detail": str(error)}, status_code=429)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _address(scope: Scope) -> str:
    behind = dict(scope["headers"]).get(b"x-forwarded-for", b"").decode("latin-1").rpartition(",")[2].strip()
    return behind or str((scope["client"] or ("unknown",))[0])
