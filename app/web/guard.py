"""The guard in front of Gradio: whose requests are taken, of what size and kind, and what every answer says.

Gradio's `component_server` parses JSON of any content type and looks at no Origin, Host is not checked, and bodies are
parsed whatever their size: a page of another site could act for the person who opened it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import JSONResponse

from app.web.envelope import fault_of, stream_fault
from app.web.limits import address_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_JSON = 1_000_000
"""Bytes of a JSON body; the page and the API send some kilobytes."""
MOST_FORM = 10_000
_BODY_SECONDS = 30.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_JSON = re.compile(r"/gradio_api/(?:queue/join|cancel|component_server|reset|(?:run|api|call|call/v2)/[^/]+)")
UPLOAD, LOGIN = "/gradio_api/upload", "/login"
_MULTIPART = "multipart/form-data"
_KINDS = {UPLOAD: (_MULTIPART,), LOGIN: ("application/x-www-form-urlencoded", _MULTIPART)}
_HALF_OF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
"""An escape that may be one: text with such characters cannot be sent back."""
_UNUSED = re.compile(
    r"/gradio_api/(?:deep_link|proxy=|stream/|vibe-|dev/|profiling|runs|run-history|process_recording)|/monitoring"
)
"""What Gradio serves beside what this app uses: some of it writes files, or asks other machines."""
_FORWARDED = (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port", b"forwarded")
_FRAMES = "'self' https://huggingface.co https://*.huggingface.co"
# Gradio's page sets itself up by a script in its HTML, and compiles the scripts of `gr.HTML`.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' blob:; worker-src 'self' blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors {frames}"
)


@dataclass(frozen=True, slots=True)
class GuardOptions:
    """`hosts`: names that the page is reached by, of which a Host or Origin may be any. `loopback`: only this machine
    reaches it, so without `hosts` only names of this machine are taken. `behind_proxy`: see `address_of`."""

    hosts: Sequence[str] = ()
    loopback: bool = False
    behind_proxy: bool = False


class Guard:
    """ASGI middleware; refusals are a status and a sentence as JSON."""

    def __init__(self, app: ASGIApp, *, options: GuardOptions) -> None:
        self._app, self._options = app, options
        self._hosts = {host.lower() for host in options.hosts}
        self._origins = self._hosts | {host.lower() for host in os.environ.get("SPACE_HOST", "").split(",") if host}
        self._in_frame = bool(os.environ.get("SPACE_ID"))
        self._policy = _POLICY.format(frames=_FRAMES if self._in_frame else "'self'")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # nothing here speaks it
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = self._plain(scope)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._add_headers(message)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None and scope["method"] == "POST" and scope["path"] != UPLOAD:
            refusal, receive = await self._read(scope, receive)
        if refusal is not None:
            status, said = refusal
            await JSONResponse({"detail": said}, status_code=status)(scope, receive, send_safely)
            return
        await self._app(scope, receive, send_safely)

    def _plain(self, scope: Scope) -> Scope:
        """The request with the address it comes from, and without what only a proxy may say."""
        address = address_of(scope, behind_proxy=self._options.behind_proxy)
        dropped = (b"x-gradio-server", *(() if self._options.behind_proxy else _FORWARDED))
        headers = [(name, value) for name, value in scope["headers"] if name not in dropped]
        path = scope["path"].rstrip("/") if scope["method"] == "POST" else scope["path"]
        return {**scope, "client": (address, 0), "headers": headers, "path": path}

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        if not self._knows_host(headers.get("host", "")):
            return 421, (
                "this app is not reached by that name: open it as localhost, or name it in UPPERSON_ALLOWED_HOSTS"
            )
        if method not in ("GET", "HEAD", "OPTIONS", "POST"):
            return 405, f"expected GET or POST, not {method[:20]}"
        if self._is_foreign(headers, method, path):
            return 403, "this request was sent by a page of another site: open the app's own page"
        if method != "POST":
            if _UNUSED.match(path):
                return 404, "there is nothing of this name"
            return stream_fault(path, QueryParams(scope["query_string"]), scope["app"]) if method == "GET" else None
        kinds = ("application/json",) if _JSON.fullmatch(path) else _KINDS.get(path, ())
        if not kinds:
            return 404, "there is nothing of this name"
        came = headers.get("content-type", "").partition(";")[0].strip().lower()
        if came not in kinds:
            return 415, f"expected the content type {kinds[0]}, got {came[:60] or 'none'}"
        return None

    def _knows_host(self, host: str) -> bool:
        name = _name_of(host)
        if self._hosts:
            return name in self._origins or (self._options.loopback and name in _LOOPBACK)
        return not self._options.loopback or name in _LOOPBACK

    def _is_foreign(self, headers: Headers, method: str, path: str) -> bool:
        """Whether a page of another site sent it, which browsers say; other programs say nothing of the kind.

        Following a link to the page is no such request. In a frame of another site, as on a Space, cookies come with
        every request: one that carries them has to say where it comes from.
        """
        origin = headers.get("origin")
        if origin is not None:
            return not self._is_ours(origin, headers)
        site = headers.get("sec-fetch-site", "none")
        if site in ("cross-site", "same-site"):
            return method != "GET" or headers.get("sec-fetch-mode") != "navigate" or path.rstrip("/") == "/logout"
        return self._in_frame and method == "POST" and "cookie" in headers and "sec-fetch-site" not in headers

    def _is_ours(self, origin: str, headers: Headers) -> bool:
        netloc = urlsplit(origin).netloc.lower()
        if not netloc:
            return False  # "null": a page that hides where it comes from
        shown = {headers.get("host", "").lower()}
        if self._options.behind_proxy:
            shown.add(headers.get("x-forwarded-host", "").partition(",")[0].strip().lower())
        return netloc in shown or _name_of(netloc) in self._origins

    async def _read(self, scope: Scope, receive: Receive) -> tuple[tuple[int, str] | None, Receive]:
        """Read a body that is kept in memory; what replays it, or why it is not taken."""
        most = MOST_JSON if scope["path"] != LOGIN else MOST_FORM
        too_large = 413, f"the request is too large: at most {most:,} bytes are taken"
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > most:
            return too_large, receive
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return (400, "the request broke off"), receive
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > most:
                        return too_large, receive
        except TimeoutError:
            return (408, f"the request took longer than {_BODY_SECONDS:g} seconds to arrive"), receive
        fault = None
        if scope["path"] != LOGIN:
            try:
                parsed = json.loads(bytes(body))
                if _HALF_OF_A_PAIR.search(body):
                    json.dumps(parsed, ensure_ascii=False).encode()
                fault = fault_of(scope["path"], parsed, scope["app"])
            except UnicodeEncodeError:
                fault = 400, "the request holds broken characters (half of a pair): type or paste them again"
            except (ValueError, RecursionError):
                fault = 400, "the request is not the JSON that was expected"
        return fault, _replay(bytes(body), receive)

    def _add_headers(self, message: Message) -> None:
        headers = MutableHeaders(scope=message)
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Content-Security-Policy", self._policy)
        headers.setdefault("Referrer-Policy", "same-origin")
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
        if not self._in_frame:
            for number, (name, value) in enumerate(message["headers"]):
                if name.lower() == b"set-cookie" and value.startswith(b"access-token-"):
                    message["headers"][number] = name, _lax(value)


def _name_of(host: str) -> str:
    """The name in a Host header or an Origin's address, without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _lax(cookie: bytes) -> bytes:
    parts = [part for part in cookie.split(b"; ") if not part.lower().startswith(b"samesite=")]
    return b"; ".join([*parts, b"SameSite=Lax"])


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
