"""Uploads: how many files and bytes a visitor may send, and how much room all of them may take."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from app.app_errors import RequestError
from app.web.guard import UPLOAD
from app.web.limits import Limit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from app.web.identity import Identity

MEGABYTE = 1_000_000
_IDLE_SECONDS = 30.0
_RESERVE_BYTES = 200 * MEGABYTE
"""Room on the disk that uploads leave to marks and searches."""
_MEASURED_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """`files` and `megabytes` a minute of one visitor, 0: no limit; `quota_megabytes`: room for all files together."""

    folder: Path
    files: int
    megabytes: int
    quota_megabytes: int


class UploadLimit:
    """ASGI middleware that refuses uploads before they fill the disk, whether they are searched by or not.

    Files are counted as they arrive, for one request may bring a thousand. A visitor is known by the signed cookie and
    by the address.
    """

    def __init__(self, app: ASGIApp, *, options: UploadOptions, identity: Identity) -> None:
        self._app, self._options, self._identity = app, options, identity
        self._files = Limit(options.files, "uploads")
        self._megabytes = Limit(options.megabytes, "megabytes of uploads")
        self._under_way = 0
        self._measured = (0.0, 0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"].rstrip("/") != UPLOAD:
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        size = int(length) if length.isdigit() else 0
        refusal = self._refusal(scope, size) if size else (411, "expected an upload that says its length")
        if refusal is not None:
            await _refuse(refusal, scope, receive, send)
            return
        self._under_way += size
        try:
            await self._pass_on(scope, receive, send)
        finally:
            self._under_way -= size

    def _refusal(self, scope: Scope, size: int) -> tuple[int, str] | None:
        quota = self._options.quota_megabytes
        if self._used() + self._under_way + size > quota * MEGABYTE:
            return 507, (
                f"there is no room for this upload now: uploads may take {quota:,} MB together "
                "(UPPERSON_UPLOAD_QUOTA_MEGABYTES), and are deleted after a day. Send less, or try again later"
            )
        if shutil.disk_usage(self._options.folder).free < self._under_way + size + _RESERVE_BYTES:
            return 507, "the disk is full: nothing can be uploaded until there is room"
        try:
            self._megabytes.count(*self._visitor(scope), amount=-(-size // MEGABYTE))
        except RequestError as error:
            return 429, str(error)
        return None

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        _, parameters = parse_options_header(Headers(scope=scope).get("content-type", ""))
        delimiter = b"--" + parameters.get(b"boundary", b"")
        parts, tail = -1, b""  # the last delimiter ends the body
        refusal: tuple[int, str] | None = None

        async def counted() -> Message:
            nonlocal parts, tail, refusal
            try:
                message = await asyncio.wait_for(receive(), _IDLE_SECONDS)
            except TimeoutError:
                refusal = 408, f"the upload has stopped for {_IDLE_SECONDS:g} seconds: send it again"
                raise MultiPartException(refusal[1]) from None
            body = tail + message.get("body", b"")
            found = body.count(delimiter)
            tail = body[-len(delimiter) + 1 :] if found == 0 else body[body.rfind(delimiter) + len(delimiter) :]
            tail = tail[-len(delimiter) + 1 :]
            new = max(0, parts + found) - max(0, parts)
            parts += found
            if new:
                try:
                    self._files.count(*self._visitor(scope), amount=new)
                except RequestError as error:
                    refusal = 429, str(error)
                    raise MultiPartException(str(error)) from error  # Gradio deletes what came of it so far
            return message

        async def answer(message: Message) -> None:
            if refusal is None:
                await send(message)

        try:
            await self._app(scope, counted, answer)
        except ClientDisconnect:  # nobody waits for an answer
            return
        if refusal is not None:
            await _refuse(refusal, scope, receive, send)

    def _visitor(self, scope: Scope) -> tuple[str, str]:
        return self._identity.visitor(scope) or "", str(scope["client"][0])

    def _used(self) -> int:
        """Bytes in the folder of uploads, looked at every other second."""
        at, used = self._measured
        if time.monotonic() - at > _MEASURED_SECONDS:
            used = _bytes_in(self._options.folder)
            self._measured = time.monotonic(), used
        return used


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # deleted meanwhile
            continue
    return total


async def _refuse(refusal: tuple[int, str], scope: Scope, receive: Receive, send: Send) -> None:
    status, said = refusal
    await JSONResponse({"detail": said}, status_code=status)(scope, receive, send)
