"""Whether the app lives, and whether it can answer searches, for load balancers and monitors.

`/healthz` and `/readyz` need no password and answer nothing else: what is wrong is in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.routing import Route

from app.app_errors import known_errors
from store.store_errors import VersionError

if TYPE_CHECKING:
    from starlette.requests import Request

    from app.services import Services

log = logging.getLogger(__name__)


def health_routes(services: Services) -> list[Route]:
    """`/healthz`: 200 while the process answers. `/readyz`: 200 while the database and the gallery can be read and the
    version in use has its vectors, else 503; each part is "ready" or "not ready"."""
    gallery = services.state.gallery

    def vectors() -> None:
        if services.retriever.serving.vectors not in gallery.versions():
            raise VersionError(f"the gallery has no vectors of {services.retriever.serving.version}")

    parts: dict[str, Callable[[], object]] = {
        "database": services.state.jobs.current,
        "gallery": gallery.count,
        "model": vectors,
    }

    async def healthy(_: Request) -> JSONResponse:  # of no thread: those may all be busy in an app that is well
        return JSONResponse({"status": "alive"})

    def ready(_: Request) -> JSONResponse:
        found = {name: _look(name, look) for name, look in parts.items()}
        well = all(found.values())
        said = {name: _words(each) for name, each in found.items()}
        return JSONResponse({"status": _words(well), **said}, status_code=200 if well else 503)

    return [Route("/healthz", healthy, methods=["GET"]), Route("/readyz", ready, methods=["GET"])]


def _look(name: str, look: Callable[[], object]) -> bool:
    try:
        look()
    except known_errors() as error:
        log.warning("not ready, the %s: %s", name, error)
        return False
    return True


def _words(well: bool) -> str:
    return "ready" if well else "not ready"
