"""What the guard before Gradio takes, refuses and adds, around an app that answers everything."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from app.web import guard
from app.web.envelope import fault_of
from app.web.guard import MOST_JSON, Guard, GuardOptions

HOST = {"host": "localhost:7860"}
OURS = "http://localhost:7860"
JOIN = "/gradio_api/queue/join"
PART = "/gradio_api/component_server"


def endpoint(text: str, k: int = 24, request: Any = None) -> None:
    """As endpoints of the API are."""


def client(**options: Any) -> TestClient:
    async def answer(request: Request) -> Response:
        assert request.client is not None
        body = await request.body()
        reply = JSONResponse({"bytes": len(body), "address": request.client.host, "host": str(request.url)})
        reply.set_cookie("access-token-x", "1", samesite="none", secure=True)
        return reply

    routes = [Route("/{path:path}", answer, methods=["GET", "POST", "DELETE"])]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, options=GuardOptions(**options))])
    fn = SimpleNamespace(
        inputs=[SimpleNamespace(skip_api=False)], api_name="search", api_visibility="public", fn=endpoint
    )
    queue = SimpleNamespace(
        pending_messages_per_session={"known": None},
        event_ids_to_events={"begun": None},
        pending_event_ids_session={"known": {"ended"}},
    )
    blocks = SimpleNamespace(blocks={3: None}, fns={0: fn}, _queue=queue)
    app.get_blocks = lambda: blocks  # type: ignore[attr-defined]
    return TestClient(app, headers=HOST)


@pytest.fixture
def local() -> TestClient:
    return client(loopback=True)


def join(browser: TestClient, **headers: str) -> int:
    body = {"data": [1], "fn_index": 0, "session_hash": "s"}
    return int(browser.post(JOIN, json=body, headers=headers).status_code)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": OURS, "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "https://localhost:7860"}, 200),
        ({"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://localhost:8000", "sec-fetch-site": "same-site"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "https://evil.example", "host": "localhost:7860", "x-forwarded-host": "evil.example"}, 403),
        ({"origin": "https://evil.example", "host": "evil.example"}, 421),
    ],
)
def test_posts_of_other_sites_are_refused(local: TestClient, headers: dict[str, str], status: int) -> None:
    assert join(local, **headers) == status


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ("/picture/x", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ("/config", {"origin": "https://evil.example"}, 403),
        ("/logout", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
        ("/logout", {"sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate"}, 200),
        ("/gradio_api/deep_link?session_hash=s", {}, 404),
        ("/monitoring", {}, 404),
    ],
)
def test_only_links_lead_here_from_other_sites(
    local: TestClient, path: str, headers: dict[str, str], status: int
) -> None:
    assert local.get(path, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("options", "host", "status"),
    [
        ({"loopback": True}, "localhost:7860", 200),
        ({"loopback": True}, "127.0.0.1:7860", 200),
        ({"loopback": True}, "[::1]:7860", 200),
        ({"loopback": True}, "LOCALHOST.", 200),
        ({"loopback": True}, "evil.example", 421),
        ({"loopback": True}, "localhost.evil.example:7860", 421),
        ({"loopback": True}, "", 421),
        ({"loopback": True}, "[::1", 421),
        ({}, "any.example", 200),
        ({"hosts": ["people.example"]}, "people.example:443", 200),
        ({"hosts": ["people.example"]}, "evil.example", 421),
        ({"hosts": ["people.example"], "loopback": True}, "localhost", 200),
    ],
)
def test_names_that_nobody_gave_the_app_are_refused(options: dict[str, Any], host: str, status: int) -> None:
    assert client(**options).get("/", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        (JOIN, "application/json; charset=utf-8", 200),
        (JOIN, "text/plain", 415),
        (JOIN, "", 415),
        ("/gradio_api/component_server/", "multipart/form-data; boundary=x", 415),
        ("/gradio_api/process_recording", "multipart/form-data; boundary=x", 404),
        ("/gradio_api/vibe-edit/", "application/json", 404),
        ("/anything", "application/json", 404),
        ("/gradio_api/upload", "application/json", 415),
        ("/login", "multipart/form-data; boundary=x", 200),
    ],
)
def test_each_path_takes_its_content_type(local: TestClient, path: str, kind: str, status: int) -> None:
    body = b'{"data": [1], "fn_index": 0, "session_hash": "s"}'
    assert local.post(path, content=body, headers={"content-type": kind}).status_code == status


def test_other_methods_are_refused(local: TestClient) -> None:
    assert local.request("DELETE", "/").status_code == 405


def test_bodies_are_capped_before_they_are_parsed(local: TestClient) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b'["' + b"x" * 100_000] * 20

    json = {"content-type": "application/json"}
    assert local.post(JOIN, content=b'"' + b"x" * MOST_JSON + b'"', headers=json).status_code == 413
    refused = local.post(JOIN, content=chunks(), headers=json)
    assert (refused.status_code, refused.json()["detail"]) == (
        413,
        "the request is too large: at most 1,000,000 bytes are taken",
    )
    fits = b'{"fn_index": 0, "session_hash": "s", "data": ["' + b"x" * 900_000 + b'"]}'
    assert local.post(JOIN, content=fits, headers=json).json()["bytes"] == len(fits)


def test_a_body_that_never_arrives_is_given_up(local: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_BODY_SECONDS", 0.05)
    sent: list[Any] = []

    async def never() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": JOIN, "query_string": b"", "headers": headers, "client": None}
    anyio.run(local.app, scope, never, send)
    assert sent[0]["status"] == 408


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        (JOIN, "{", 400, "not the JSON"),
        (JOIN, "[" * 100_000, 400, "not the JSON"),
        (JOIN, "[]", 400, "JSON object"),
        (JOIN, '{"fn_index": 9, "session_hash": "s", "data": []}', 404, "no event"),
        (JOIN, '{"fn_index": true, "session_hash": "s", "data": [1]}', 404, "no event"),
        (JOIN, '{"fn_index": 0, "session_hash": 7, "data": [1]}', 400, "session_hash is a text"),
        (JOIN, '{"fn_index": 0, "data": [1]}', 400, "expected a session_hash"),
        (JOIN, '{"fn_index": 0, "session_hash": "s", "data": []}', 400, "1 arguments are expected, 0 came"),
        (JOIN, '{"fn_index": 0, "session_hash": "s", "data": {}}', 400, "data is a list"),
        ("/gradio_api/call/search", '{"data": []}', 400, "1 arguments are expected"),
        ("/gradio_api/call/nothing", '{"data": [1]}', 404, "no endpoint"),
        ("/gradio_api/run/predict", '{"fn_index": 7, "data": [1]}', 404, "no event"),
        (PART, '{"session_hash": "s", "component_id": 4, "fn_name": "x", "data": 1}', 404, "no part"),
        (PART, '{"session_hash": "s", "component_id": [], "fn_name": "x", "data": 1}', 404, "no part"),
        (PART, '{"session_hash": "s", "component_id": 3, "fn_name": 8, "data": 1}', 404, "no action"),
        ("/gradio_api/cancel", "{}", 400, "expected event_id and session_hash and fn_index"),
        ("/gradio_api/reset", '{"event_id": 3}', 400, "expected event_id"),
        ("/gradio_api/call/v2/search", "{}", 400, "text is missing: the arguments are text, k"),
        ("/gradio_api/call/v2/search", '{"text": "a", "x": 1}', 400, "'x' is not known"),
        ("/gradio_api/call/search", '{"data": ["\\ud800"]}', 400, "half of a pair"),
        (PART, '{"component_id": 3, "fn_name": "x", "data": 1}', 400, "expected session_hash"),
    ],
)  # fmt: skip
def test_wrong_calls_get_a_sentence(local: TestClient, path: str, body: str, status: int, says: str) -> None:
    answer = local.post(path, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/gradio_api/queue/data?session_hash=known", 200),
        ("/gradio_api/queue/data?session_hash=nobody", 404),
        ("/gradio_api/queue/data", 200),  # Gradio itself says what is missing
        ("/gradio_api/call/search/begun", 200),
        ("/gradio_api/call/search/ended", 200),
        ("/gradio_api/call/v2/search/nothing", 404),
        ("/gradio_api/call/search/nothing", 404),
    ],
)
def test_answers_of_unknown_sessions_are_not_found(
    local: TestClient, caplog: pytest.LogCaptureFixture, path: str, status: int
) -> None:
    reply = local.get(path)
    assert reply.status_code == status
    said = [record for record in caplog.records if record.name == "app.web.envelope"]
    assert [record.message.startswith("answers were asked for") for record in said] == [True] * (status == 404)
    if status == 404:
        assert "send the request again" in reply.json()["detail"]
        assert said[0].exc_info is None


def test_headers_of_a_proxy_are_believed_where_there_is_one(local: TestClient) -> None:
    headers = {"x-forwarded-for": "6.6.6.6, 192.0.2.9", "x-forwarded-host": "evil.example"}
    assert local.get("/", headers=headers).json()["address"] == "testclient"
    behind = client(behind_proxy=True)
    assert behind.get("/", headers=headers).json()["address"] == "192.0.2.9"
    public = {"origin": "https://people.example", "x-forwarded-host": "people.example"}
    assert (join(local, **public), join(behind, **public)) == (403, 200)


def test_every_answer_says_how_browsers_may_use_it(local: TestClient) -> None:
    for answer in (local.get("/"), local.get("/", headers={"host": "evil.example"})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    cookie = local.get("/").headers["set-cookie"]
    assert "SameSite=Lax" in cookie
    assert "none" not in cookie.lower()


def test_a_space_is_shown_in_a_frame_and_asks_for_an_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "ada/search")
    monkeypatch.setenv("SPACE_HOST", "ada-search.hf.space")
    space = client(behind_proxy=True)
    answer = space.get("/")
    assert "https://huggingface.co" in answer.headers["content-security-policy"]
    assert "SameSite=none" in answer.headers["set-cookie"]
    space.cookies.clear()
    assert join(space) == 200  # gradio_client
    assert join(space, cookie="session=1") == 403
    assert (
        join(space, cookie="session=1", origin="https://ada-search.hf.space", **{"sec-fetch-site": "same-origin"})
        == 200
    )
    assert join(space, cookie="session=1", origin="https://evil.example") == 403


@pytest.mark.parametrize("file", ["a" * 256, "a" * 300 + "/b", "/x" * 2_100, "a\0b"])
def test_a_path_that_no_file_system_takes_gets_a_sentence(file: str) -> None:
    body = {"data": [{"path": file, "meta": {"_type": "gradio.FileData"}}]}
    fault = fault_of("/gradio_api/call/image", body, None)
    assert fault is not None
    assert fault[0] == 400
    assert "upload the file" in fault[1]
