"""Serving: settings -> services -> pages and API, until the process is stopped."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from app.app_errors import StartError
from app.process.log_lines import cut_log_lines
from app.progress import Terminal
from app.settings import Settings
from train.memory import return_large_blocks

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from app.services import Services

MOST_UPLOADED = "50mb"
_MOST_WAITING = 256
"""Events in Gradio's queue, each of which may hold a body of 1 MB; more are refused."""
_OPEN_FILES = 65_536
_SWITCH_SECONDS = 0.0001
"""Python's threads take turns after so long. PyTorch and LanceDB release the interpreter lock a hundred times in a
search and wait for it again: with 5 ms, the default, the searches of many people took twice as long."""
_SESSIONS_KEPT = 200
"""Sessions of which Gradio keeps what it knows, 95 kB each. Pages keep nothing there that they would miss."""


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM, then end training and close everything. Raises StartError."""
    cut_log_lines()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("app").setLevel(logging.INFO)
    check_port(settings.host, settings.port)
    check_base(settings.train_base)
    set_environment(settings)
    return_large_blocks()
    allow_open_files()
    sys.setswitchinterval(_SWITCH_SECONDS)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells make their background jobs ignore it

    from app.services import Services

    with Terminal() as progress:
        services = Services.open(settings, progress=progress)
    os.chdir(settings.data_dir)  # what Gradio calls an uploaded file is its path from here: clients learn no other
    try:
        url, close = launch(services)
        gc.collect()
        gc.freeze()  # half a million objects, nearly all of libraries: looking through them took 350 ms each time
        gc.set_threshold(700, 10, 200)  # what came since takes 100 ms: no longer every seven seconds of many requests
        try:
            print(f"Person search is running on {url} (data in {settings.data_dir}). Ctrl-C stops it.", flush=True)
            stopped.wait()
        except KeyboardInterrupt:
            print("Stopping …", flush=True)
        finally:
            close()
    finally:
        services.close()


def launch(services: Services) -> tuple[str, Callable[[], None]]:
    """Build the pages and the API and start to serve them; returns the address and what closes them."""
    import gradio as gr

    from app.pages import layout
    from app.process.health import health_routes
    from app.web.identity import FRAME_SCRIPT
    from app.web.sign_in import verified
    from app.web.stack import middleware
    from app.web.uploads import guard_uploads

    settings = services.settings
    stack = middleware(settings, services.identity)
    guard_uploads()
    _empty(settings)
    demo: gr.Blocks = layout.build(services)
    demo.queue(max_size=_MOST_WAITING)
    try:
        _, local, shared = demo.launch(
            server_name=settings.host,
            server_port=settings.port,
            share=settings.share,
            auth=verified if settings.auth_file else None,
            app_kwargs={"routes": [picture_route(services), *health_routes(services)], "middleware": stack},
            max_file_size=MOST_UPLOADED,
            state_session_capacity=_SESSIONS_KEPT,
            run_history=False,
            ssr_mode=False,
            prevent_thread_lock=True,
            quiet=True,
            head=FRAME_SCRIPT if os.environ.get("SPACE_ID") else None,
            **layout.launch_options(),
        )
    except OSError as error:
        raise StartError(_taken(settings.host, settings.port)) from error
    return shared or local, demo.close


def picture_route(services: Services) -> Route:
    """`/picture/{image_id}?size=thumb|full`: a gallery picture by its id, and nothing else of this machine.

    Where people sign in by a file of passwords, for them only, like everything else. On a Space everybody may search,
    and so see every picture.
    """
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from app.app_errors import known_errors

    def picture(request: Request) -> Response:
        if not _let_in(request):
            return JSONResponse({"error": "sign in on the page first"}, status_code=401)
        image_id, size = request.path_params["image_id"], request.query_params.get("size", "full")
        tag = f'"{image_id}-{size}"'
        headers = {
            "Cache-Control": "private, max-age=86400",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
            "ETag": tag,
        }
        try:
            data, mime = services.picture(image_id, size=size)  # type: ignore[arg-type]
        except known_errors() as error:
            return JSONResponse({"error": str(error)}, status_code=404)
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=mime, headers=headers)

    return Route("/picture/{image_id}", picture, methods=["GET"])


def _let_in(request: Request) -> bool:
    """Return whether Gradio, which serves this route, needs no password or has got one from this browser."""
    from app.web.identity import signed_in

    return request.app.auth is None or signed_in(request) is not None


def set_environment(settings: Settings) -> None:
    """What Gradio and the Hub's client read when they are imported: no reports home, files in our own folder."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(settings.tmp_dir.relative_to(settings.data_dir))  # the folder `serve` works in
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # uvicorn would believe X-Forwarded-For of this machine: see `address_of`
    # For its monitoring page, which is not served, Gradio goes through its last 10,000 requests after each new one.
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**9))


def allow_open_files() -> None:
    """Let as many connections be open as the system allows: often 1,024 are the default, and every page holds two."""
    if sys.platform == "win32":
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(most, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def check_port(host: str, port: int) -> None:
    """Raise StartError if nobody can listen on `host`:`port`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise StartError(
            f"the host {host!r} is not known here ({error.strerror or error}): "
            "use 127.0.0.1 for this machine alone, or 0.0.0.0 for all its networks"
        ) from error
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise StartError(_taken(host, port)) from error


def check_base(folder: Path | None) -> None:
    """Raise StartError if the folder that training shall replay cannot be used for it."""
    if folder is None:
        return
    from train.datasets import DataSetError
    from train.finetuning.replay import read_known

    try:
        read_known(folder)
    except DataSetError as error:
        raise StartError(f"UPPERSON_TRAIN_BASE cannot be used: {error}") from error


def _taken(host: str, port: int) -> str:
    return (
        f"port {port} on {host} cannot be used: another program has taken it, or you may not listen there. "
        f"Stop that program, or choose another port with --port or UPPERSON_PORT, for example --port {port % 65535 + 1}"
    )


def _empty(settings: Settings) -> None:
    """Clear what earlier runs left in the folder of uploads and downloads; the lock says that nobody else uses it.

    Exports may be written by other processes at this moment: of those only what is old.
    """
    from app.web.export_files import clear_killed

    clear_killed(settings.exports_dir)
    for entry in settings.tmp_dir.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
