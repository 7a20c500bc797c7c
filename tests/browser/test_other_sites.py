"""A page of another site, open in the same browser, cannot act for the person who uses the app: by http and https."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from playwright.sync_api import Browser, Page

from app.web.identity import COOKIE, TOKEN_COOKIE
from tests.browser.conftest import CHROMIUM, PATIENCE, StartApp
from tests.conftest import RunningApp

pytestmark = pytest.mark.abuse

_ATTACKS = """async ([app, part]) => {
  const said = {};
  const send = async (name, path, options) => {
    try {
      const answer = await fetch(app + path, { credentials: "include", ...options });
      said[name] = [answer.type, answer.status, answer.type === "opaque" ? "" : await answer.text()];
    } catch (fault) { said[name] = ["refused by the browser", 0, String(fault)]; }
  };
  const call = JSON.stringify({ component_id: part, fn_name: "train", data: {}, session_hash: "other" });
  await send("text/plain", "gradio_api/component_server/", { method: "POST", mode: "no-cors", body: call });
  await send("json", "gradio_api/component_server/",
    { method: "POST", headers: { "content-type": "application/json" }, body: call });
  await send("join", "gradio_api/call/train",
    { method: "POST", mode: "no-cors", headers: { "content-type": "text/plain" }, body: '{"data": []}' });
  await send("read", "config", {});
  return said;
}"""


class Elsewhere(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><link rel=icon href=data:,><p>another site")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def another_site(certificate: Path | None) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    if certificate is not None:
        server.socket = _context(certificate).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def in_front_of(port: int, certificate: Path) -> Iterator[int]:
    """A port that speaks TLS and passes everything on to the app, as a proxy would."""
    ready, loops, ports = threading.Event(), list[asyncio.AbstractEventLoop](), list[int]()
    stop, writers = asyncio.Event(), list[asyncio.StreamWriter]()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            sink.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, inner_writer))
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    async def serve() -> None:
        async with await asyncio.start_server(take, "127.0.0.1", 0, ssl=_context(certificate)) as server:
            loops.append(asyncio.get_running_loop())
            ports.append(server.sockets[0].getsockname()[1])
            ready.set()
            await stop.wait()
            for writer in writers:
                writer.transport.abort()
            await asyncio.sleep(0.2)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield ports[0]
    loops[0].call_soon_threadsafe(stop.set)
    thread.join(10)


def _context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


SPACE, HUB = "ada-search.hf.space", "huggingface.co"


@contextmanager
def hub(browser: Browser, space: int, other: int) -> Iterator[Page]:
    """A page in a browser that finds a Space, and the site whose frame shows it, on these ports of this machine."""
    path = next(filter(None, map(shutil.which, CHROMIUM)))
    hosts = f"--host-resolver-rules=MAP {SPACE}:443 127.0.0.1:{space}, MAP {HUB}:443 127.0.0.1:{other}"
    opened = browser.browser_type.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu", hosts])
    yield opened.new_context(ignore_https_errors=True).new_page()
    opened.close()


def test_a_space_works_in_its_frame_by_a_token(browser: Browser, launch: StartApp, certificate: Path) -> None:
    environment = {"SPACE_ID": "ada/search", "GRADIO_SERVER_NAME": "127.0.0.1", "UPPERSON_ALLOWED_HOSTS": SPACE}
    app = launch("space", **environment)
    port = int(app.url.rsplit(":", 1)[1].strip("/"))
    with (
        another_site(certificate) as other,
        in_front_of(port, certificate) as tls,
        hub(browser, tls, other) as page,
    ):
        page.goto(f"https://{HUB}/")
        page.set_content(f'<iframe src="https://{SPACE}/" width=1200 height=800></iframe>')
        frame = page.frame_locator("iframe")
        frame.locator("#up-caption textarea").fill("a man", timeout=3 * PATIENCE)
        frame.locator("#up-caption textarea").press("Enter")
        frame.locator(".up-card").first.wait_for(timeout=3 * PATIENCE)
        cookies = {str(one["name"]): str(one["value"]) for one in page.context.cookies()}
    headers = {"host": SPACE, "origin": f"https://{SPACE}", "sec-fetch-site": "same-origin"}
    for token, status in ((cookies[TOKEN_COOKIE], 200), ("0" * 64, 403)):
        answer = httpx.post(
            f"{app.url}gradio_api/call/jobs",
            json={"data": []},
            headers=headers | {"x-upperson-token": token, "cookie": f"{COOKIE}={cookies[COOKIE]}"},
        )
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_another_site_cannot_act_or_read(browser: Browser, app: RunningApp, certificate: Path, scheme: str) -> None:
    port = int(app.url.rsplit(":", 1)[1].strip("/"))
    parts = httpx.get(f"{app.url}config").json()["components"]
    learning = next(part["id"] for part in parts if part["props"].get("elem_id") == "up-learning")
    secure = scheme == "https"
    with another_site(certificate if secure else None) as other, in_front_of(port, certificate) as tls:
        ours = f"{scheme}://127.0.0.1:{tls if secure else port}/"
        context = browser.new_context(ignore_https_errors=True)
        page = context.new_page()
        page.goto(ours)
        page.fill("#up-caption textarea", "a man")
        page.press("#up-caption textarea", "Enter")
        page.locator(".up-card").first.wait_for()
        stranger = context.new_page()
        stranger.goto(f"{scheme}://localhost:{other}/")
        said = stranger.evaluate(_ATTACKS, [ours, learning])
        stranger.set_content(f'<iframe src="{ours}" onload="window.loaded = true"></iframe>')
        stranger.wait_for_function("window.loaded")
        assert [frame.url for frame in stranger.frames[1:]] == ["chrome-error://chromewebdata/"], "shown in a frame"
        context.close()
    jobs = httpx.post(f"{app.url}gradio_api/call/jobs", json={"data": []}).json()["event_id"]
    assert "[[]]" in httpx.get(f"{app.url}gradio_api/call/jobs/{jobs}").text, "a training run was started"
    assert set(said) == {"text/plain", "json", "join", "read"}
    for name, (_, status, text) in said.items():  # 0: the browser keeps the answer to itself
        assert status in (0, 403), (name, status, text)
        assert status == 0 or "page of another site" in text, (name, text)
