"""Who a request belongs to: the signed-in name, else a random id in a signed cookie, else the API session."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itsdangerous import BadSignature, URLSafeSerializer

from app.app_errors import RequestError, StartError
from app.web.limits import current_address

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "upperson_user"
_ONE_YEAR = 365 * 24 * 3600


class Identity:
    """Signs and reads the cookie that holds a user's random id."""

    def __init__(self, secret: str) -> None:
        self._serializer = URLSafeSerializer(secret, salt=COOKIE)

    @classmethod
    def open(cls, path: Path) -> Identity:
        """Read the signing secret from `path`, which is made at the first start and readable by its owner only."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            secret = _read_secret(path)
            if secret:
                return cls(secret)
            descriptor = os.open(
                path, os.O_WRONLY | os.O_TRUNC
            )  # cut short while it was written: nobody holds a cookie yet
        secret = secrets.token_hex(32)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secret)
        return cls(secret)

    def new_cookie(self) -> str:
        """A signed value with a fresh random id."""
        return str(self._serializer.dumps(secrets.token_hex(16)))

    def read(self, cookie: str | None) -> str | None:
        """The id in a cookie's value, or None when it is missing or was not signed by us."""
        try:
            user = self._serializer.loads(cookie) if cookie else None
        except BadSignature:
            return None
        return user if isinstance(user, str) else None

    def visitor(self, scope: Scope) -> str | None:
        """The id in the cookie of a raw HTTP request, or None."""
        try:
            cookies = SimpleCookie(dict(scope["headers"]).get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            return None
        return self.read(cookies[COOKIE].value) if COOKIE in cookies else None

    def user_of(self, request: Any) -> str:
        """The user of a `gr.Request`.

        Ids of cookies and sessions carry a colon, which no signed-in name holds. Raises RequestError when the
        request names nobody at all. Limits count by its address, too, from now on in this context.
        """
        if request is not None:
            client = getattr(request, "client", None)
            current_address.set(str(getattr(client, "host", "") or ""))
            if request.username:
                return str(request.username)
            signed_in = _oauth_name(request)
            if signed_in:
                return signed_in
            cookies = request.cookies
            user = self.read(cookies.get(COOKIE) if isinstance(cookies, Mapping) else getattr(cookies, COOKIE, None))
            if user:
                return f"cookie:{user}"
            if request.session_hash:
                return f"session:{str(request.session_hash)[:64]}"
        raise RequestError("the request has no session: use gradio_client, or send a session_hash of your own with it")


def _read_secret(path: Path) -> str:
    """The secret in the file; empty if it was cut short while it was written. Raises StartError on anything else."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StartError(f"{path} cannot be read ({error.strerror or error}): give the right to read it") from error
    if not re.fullmatch(rb"[0-9a-f]*\s*", text):
        raise StartError(
            f"{path} holds no secret that this app wrote: restore it from a copy, or delete it, and everybody who has "
            "not signed in is taken for somebody new"
        )
    secret = text.decode("ascii").strip()
    return secret if len(secret) >= 32 else ""


def is_signed_in(user: str) -> bool:
    """Whether `user_of` named somebody who signed in."""
    return ":" not in user


def signed_in(request: Any) -> str | None:
    """The name that a raw request to Gradio's app signed in by with a password, or None.

    Gradio itself passes it to the handlers of events only.
    """
    gradio = request.app
    names = (f"access-token-{gradio.cookie_id}", f"access-token-unsecure-{gradio.cookie_id}")  # by https, by http
    found = (gradio.tokens.get(request.cookies.get(name)) for name in names)
    return next((str(name) for name in found if name), None)


def _oauth_name(request: Any) -> str | None:
    """The Hugging Face name in the session that Gradio signed at the last sign-in, while it is valid."""
    scope = getattr(getattr(request, "request", None), "scope", None)
    info = (scope.get("session") or {}).get("oauth_info") if scope else None
    if not isinstance(info, Mapping) or float(info.get("expires_at") or 0) <= time.time():
        return None
    name = str((info.get("userinfo") or {}).get("preferred_username") or "")
    return name if name and ":" not in name else None


class IdentityCookie:
    """ASGI middleware that gives every browser that opens a page its signed cookie."""

    def __init__(self, app: ASGIApp, *, identity: Identity) -> None:
        self._app = app
        self._identity = identity
        # A Space is shown in a frame of another site, where browsers keep only such cookies.
        in_frame = "; SameSite=None; Secure; Partitioned" if os.environ.get("SPACE_ID") else "; SameSite=Lax"
        self._attributes = f"; Path=/; Max-Age={_ONE_YEAR}; HttpOnly{in_frame}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._is_new_page_visit(scope):
            await self._app(scope, receive, send)
            return
        cookie = f"{COOKIE}={self._identity.new_cookie()}{self._attributes}".encode("ascii")

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), (b"set-cookie", cookie)]}
            await send(message)

        await self._app(scope, receive, send_with_cookie)

    def _is_new_page_visit(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        if scope["method"] != "GET" or b"text/html" not in headers.get(b"accept", b""):
            return False
        return self._identity.visitor(scope) is None
