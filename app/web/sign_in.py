"""Signing in by a password: checked in a thread, with growing waits for who guesses."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextvars import ContextVar
from threading import Lock
from typing import TYPE_CHECKING

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from app.app_errors import RequestError
from app.web.guard import LOGIN
from app.web.limits import network_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

FREE_GUESSES = 5
_LONGEST_WAIT = {"name": 60.0, "address": 900.0}
"""Seconds. A stranger who guesses must not lock the owner of the name out for long."""
_FORGOTTEN_AFTER = 3600.0
_MOST_KEYS = 10_000
_AT_ONCE = 2
"""Passwords checked at the same time: each takes 16 MB and a tenth of a second of a processor."""

log = logging.getLogger(__name__)
_verified: ContextVar[tuple[str, str] | None] = ContextVar("verified", default=None)


class Guesses:
    """Wrong passwords by name and by address: after `FREE_GUESSES` each has to wait, twice as long each time."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._lock = Lock()

    def begin(self, name: str, address: str, now: float | None = None) -> None:
        """Counts a try as wrong until `succeed`. Raises RequestError while its name or address has to wait."""
        now = time.monotonic() if now is None else now
        with self._lock:
            waits = [0.0]
            for key in self._keys(name, address):
                wrong, last = self._wrong.get(key, (0, 0.0))
                waits.append(last + _wait(key[0], wrong) - now)
            if max(waits) > 0:
                raise RequestError(f"too many wrong passwords: try again in {int(max(waits)) + 1} seconds")
            for key in self._keys(name, address):
                wrong, last = self._wrong.pop(key, (0, 0.0))
                self._wrong[key] = (wrong + 1 if now - last < _FORGOTTEN_AFTER else 1), now
            while len(self._wrong) > _MOST_KEYS:
                self._wrong.popitem(last=False)

    def succeed(self, name: str, address: str) -> None:
        """The password was right: nothing is held against its name and address any more."""
        with self._lock:
            for key in self._keys(name, address):
                self._wrong.pop(key, None)

    @staticmethod
    def _keys(name: str, address: str) -> tuple[tuple[str, str], ...]:
        return ("name", name), ("address", network_of(address))


def _wait(kind: str, wrong: int) -> float:
    return 0.0 if wrong < FREE_GUESSES else float(min(2.0 ** min(wrong - FREE_GUESSES, 20), _LONGEST_WAIT[kind]))


class SignIn:
    """ASGI middleware that answers wrong passwords itself and passes right ones on to Gradio, which makes the cookie.

    Gradio would check each on its event loop, where nothing else goes on meanwhile.
    """

    def __init__(self, app: ASGIApp, *, check: Callable[[str, str], bool]) -> None:
        self._app, self._check = app, check
        self._guesses = Guesses()
        self._limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != LOGIN:
            await self._app(scope, receive, send)
            return
        message = await receive()  # whole: see Guard

        async def again() -> Message:
            return message

        try:
            async with Request(scope, again).form(max_files=0, max_fields=10) as form:
                given = form.get("username"), form.get("password")
        except HTTPException:
            given = None, None
        name, password = (value if isinstance(value, str) else "" for value in given)
        name = name.strip()
        address = str(scope["client"][0])
        try:
            self._guesses.begin(name[:64], address)
        except RequestError as error:
            log.warning("sign-in of %.70r from %s was not tried: %s", name, address, error)
            await JSONResponse({"detail": str(error)}, status_code=429)(scope, receive, send)
            return
        if not await anyio.to_thread.run_sync(self._check, name, password, limiter=self._limiter):
            log.warning("sign-in of %.70r from %s failed", name, address)
            await JSONResponse({"detail": "Incorrect credentials."}, status_code=400)(scope, receive, send)
            return
        self._guesses.succeed(name[:64], address)
        token = _verified.set((name, password))
        try:
            await self._app(scope, again, send)
        finally:
            _verified.reset(token)


def verified(name: str, password: str) -> bool:
    """Whether the request that is answered now has shown that this is the password of this name. For Gradio."""
    return _verified.get() == (name, password)
