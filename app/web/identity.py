"""Who a request belongs to: the signed-in name, else a random id in a signed cookie, else the API session."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itsdangerous import BadSignature, URLSafeSerializer
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse

from app.app_errors import RequestError, StartError
from app.web.limits import current_address

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE, TOKEN_COOKIE = "upperson_user", "upperson_token"
TOKEN_HEADER = b"x-upperson-token"
FRAME_SCRIPT = """<script>
{
  const plain = window.fetch;
  window.fetch = (input, init) => {
    const asked = input instanceof Request ? input : null;
    const post = (init?.method || asked?.method || "GET").toUpperCase() === "POST";
    if (!post || new URL(asked?.url ?? input, location.href).origin !== location.origin) return plain(input, init);
    const headers = new Headers(init?.headers ?? asked?.headers);
    headers.set("x-upperson-token", document.cookie.match(/(?:^|; )upperson_token=([^;]*)/)?.[1] || "");
    return plain(input, { ...init, headers });
  };
  for (const name of ["localStorage", "sessionStorage"]) {
    try { window[name]; } catch {
      const kept = new Map();
      Object.defineProperty(window, name, { value: {
        getItem: (key) => kept.get(key) ?? null,
        setItem: (key, value) => { kept.set(key, String(value)); },
        removeItem: (key) => { kept.delete(key); },
        clear: () => kept.clear(),
        key: (at) => [...kept.keys()][at] ?? null,
        get length() { return kept.size; },
      } });
    }
  }
}
</script>"""
"""For the head of the page in a Space's frame: sends the token of `FrameToken` with all that changes anything, and
keeps in memory what a browser does not let frames of another site store: reading it would be an error."""
_ONE_YEAR = 365 * 24 * 3600


class Identity:
    """Signs and reads the cookie that holds a user's random id."""

    def __init__(self, secret: str) -> None:
        self._serializer = URLSafeSerializer(secret, salt=COOKIE)
        self._secret = secret.encode()

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
        return self.read(_cookies(scope).get(COOKIE))

    def token(self, user: str) -> str:
        """What only pages of this app learn of a user, who is known by a cookie that every site can have sent."""
        return hmac.digest(self._secret, f"token of {user}".encode(), "sha256").hex()

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


def _cookies(scope: Scope) -> dict[str, str]:
    """Read as Gradio reads them, so that none counts there which is overlooked here."""
    lines = [value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie"]
    return cookie_parser("; ".join(lines))


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
    """ASGI middleware that gives every browser that opens a page its signed cookie, and in a frame its token."""

    def __init__(self, app: ASGIApp, *, identity: Identity) -> None:
        self._app = app
        self._identity = identity
        # A Space is shown in a frame of another site, where browsers keep only such cookies.
        self._in_frame = bool(os.environ.get("SPACE_ID"))
        kept = "; SameSite=None; Secure; Partitioned" if self._in_frame else "; SameSite=Lax"
        self._attributes = f"; Path=/; Max-Age={_ONE_YEAR}{kept}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        new = self._new_cookies(scope) if scope["type"] == "http" and _is_page_visit(scope) else {}
        if not new:
            await self._app(scope, receive, send)
            return
        lines = [(b"set-cookie", f"{name}={value}{self._attributes}".encode("ascii")) for name, value in new.items()]

        async def send_with_cookies(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *lines]}
            await send(message)

        await self._app(scope, receive, send_with_cookies)

    def _new_cookies(self, scope: Scope) -> dict[str, str]:
        """Those that the browser lacks, by name. The page's script reads the token, and nobody the other."""
        cookies = _cookies(scope)
        user, new = self._identity.read(cookies.get(COOKIE)), dict[str, str]()
        if user is None:
            value = self._identity.new_cookie()
            user, new[COOKIE] = self._identity.read(value) or "", f"{value}; HttpOnly"
        if self._in_frame and cookies.get(TOKEN_COOKIE) != self._identity.token(user):
            new[TOKEN_COOKIE] = self._identity.token(user)
        return new


class FrameToken:
    """ASGI middleware for a Space: in the frame of another site, cookies come with every request. One that changes
    anything in the name that the cookies carry has to show the token, which pages of this app alone can read."""

    def __init__(self, app: ASGIApp, *, identity: Identity) -> None:
        self._app, self._identity = app, identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and not self._may(scope):
            said = "this page is no longer known here: reload it, and allow its cookies"
            await JSONResponse({"detail": said}, status_code=403)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _may(self, scope: Scope) -> bool:
        cookies = _cookies(scope)
        if not any(name in (COOKIE, "session") or name.startswith("access-token-") for name in cookies):
            return True  # it acts for nobody
        user, shown = self._identity.read(cookies.get(COOKIE)), dict(scope["headers"]).get(TOKEN_HEADER, b"")
        return user is not None and hmac.compare_digest(self._identity.token(user).encode(), shown)


def _is_page_visit(scope: Scope) -> bool:
    return scope["method"] == "GET" and b"text/html" in dict(scope["headers"]).get(b"accept", b"")
