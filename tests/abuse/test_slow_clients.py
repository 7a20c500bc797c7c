"""Clients that send or read as slowly as they can hold up nobody else."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.conftest import RunningApp

SLOW, PATIENCE = 300, 20.0
"""Connections, and seconds: many times what a search takes where other work goes on beside it."""


@contextmanager
def connections(app: RunningApp, first: bytes) -> Iterator[list[socket.socket]]:
    """Connections that have sent `first`, and neither read nor send anything else by themselves."""
    address = (app.url.split("/")[2].split(":")[0], int(app.url.rsplit(":", 1)[1].strip("/")))
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.create_connection(address, timeout=10)) for _ in range(SLOW)]
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            one.sendall(first)
        yield sockets


def check_answers(app: RunningApp) -> None:
    began = time.monotonic()
    with httpx.Client(base_url=app.url, timeout=PATIENCE) as http:
        asked = http.post("gradio_api/call/search", json={"data": ["a man", None, "", 3, {}, 0.5, 0.5]}).json()
        assert "event: complete" in http.get(f"gradio_api/call/search/{asked['event_id']}").text
    assert time.monotonic() - began < PATIENCE


HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\nContent-Length: 900000\r\n\r\n"


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n" + HOST + b"X-Slow: ",
        b"POST /gradio_api/queue/join HTTP/1.1\r\n" + HOST + JSON + b'{"data": [',
        b"POST /gradio_api/upload HTTP/1.1\r\n" + HOST + b"Content-Type: multipart/form-data; boundary=b\r\n"
        b'Content-Length: 90000\r\n\r\n--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n-',
        b"GET /config HTTP/1.1\r\n" + HOST + b"\r\n" + b"GET /config HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /gradio_api/heartbeat/slow HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
    ids=["headers", "JSON", "upload", "unread answer", "unread events"],
)
def test_slow_clients_hold_up_nobody(app: RunningApp, first: bytes) -> None:
    with connections(app, first) as slow:
        check_answers(app)
        for one in slow[::10]:
            one.sendall(b"x")
        check_answers(app)
    check_answers(app)
