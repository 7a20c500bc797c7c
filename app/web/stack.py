"""The ASGI middleware of the app, from the outside to the inside."""

from __future__ import annotations

import os

from starlette.middleware import Middleware

from app.settings import Settings
from app.web.guard import Guard, GuardOptions
from app.web.identity import FrameToken, Identity, IdentityCookie
from app.web.passwords import checker
from app.web.sign_in import SignIn
from app.web.upload_limits import UploadLimit, UploadOptions


def middleware(settings: Settings, identity: Identity) -> list[Middleware]:
    """What requests pass before Gradio. Raises StartError if the file of passwords is unusable."""
    options = GuardOptions(settings.allowed_hosts, settings.loopback, settings.behind_proxy)
    uploads = UploadOptions(
        folder=settings.tmp_dir,
        files=settings.uploads_per_minute,
        megabytes=settings.upload_megabytes_per_minute,
        quota_megabytes=settings.upload_quota_megabytes,
    )
    sign_in = [Middleware(SignIn, check=checker(settings.auth_file))] if settings.auth_file else []
    token = [Middleware(FrameToken, identity=identity)] if os.environ.get("SPACE_ID") else []
    return [
        Middleware(Guard, options=options),
        *token,
        *sign_in,
        Middleware(IdentityCookie, identity=identity),
        Middleware(UploadLimit, options=uploads, identity=identity),
    ]
