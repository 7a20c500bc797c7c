from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.app_errors import RequestError
from app.web.identity import COOKIE, TOKEN_COOKIE, FrameToken, Identity, IdentityCookie


def request(*, cookie: str | None = None, session: str | None = None, username: str | None = None) -> Any:
    cookies = {} if cookie is None else {COOKIE: cookie}
    return SimpleNamespace(username=username, cookies=cookies, session_hash=session)


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity.open(tmp_path / "secret")


def test_a_cookie_is_the_same_user_after_a_restart(tmp_path: Path, identity: Identity) -> None:
    cookie = identity.new_cookie()
    again = Identity.open(tmp_path / "secret")
    assert again.user_of(request(cookie=cookie, session="s")) == identity.user_of(request(cookie=cookie))
    assert identity.user_of(request(cookie=cookie)).startswith("cookie:")
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_forged_cookie_is_nobody(tmp_path: Path, identity: Identity) -> None:
    stranger = Identity.open(tmp_path / "other")
    for forged in (stranger.new_cookie(), identity.new_cookie()[:-1], "x", ""):
        assert identity.user_of(request(cookie=forged, session="mine")) == "session:mine"


def test_a_signed_in_name_comes_first(identity: Identity) -> None:
    assert identity.user_of(request(username="ada", cookie=identity.new_cookie(), session="s")) == "ada"


def test_a_request_of_nobody_learns_what_to_send(identity: Identity) -> None:
    with pytest.raises(RequestError, match="session_hash"):
        identity.user_of(request())


def test_a_secret_cut_short_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("abc")
    cookie = Identity.open(tmp_path / "secret").new_cookie()
    assert Identity.open(tmp_path / "secret").read(cookie)


def test_only_a_browser_that_opens_a_page_without_a_cookie_gets_one(identity: Identity) -> None:
    page = Route("/", lambda _: PlainTextResponse("page"), methods=["GET", "POST"])
    client = TestClient(Starlette(routes=[page], middleware=[Middleware(IdentityCookie, identity=identity)]))
    browser = {"accept": "text/html,*/*"}
    assert "set-cookie" not in client.get("/", headers={"accept": "*/*"}).headers
    assert "set-cookie" not in client.post("/", headers=browser).headers
    first = client.get("/", headers=browser)
    assert "HttpOnly" in first.headers["set-cookie"]
    assert "SameSite=Lax" in first.headers["set-cookie"]
    assert identity.read(client.cookies[COOKIE])
    assert "set-cookie" not in client.get("/", headers=browser).headers
    client.cookies.clear()
    client.cookies.set(COOKIE, "forged")
    assert "set-cookie" in client.get("/", headers=browser).headers


def test_in_the_frame_of_another_site_a_cookie_needs_its_token(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE_ID", "ada/search")
    page = Route("/", lambda _: PlainTextResponse("page"), methods=["GET", "POST"])
    stack = [Middleware(FrameToken, identity=identity), Middleware(IdentityCookie, identity=identity)]
    client = TestClient(Starlette(routes=[page], middleware=stack), base_url="https://testserver")
    browser = {"accept": "text/html"}
    assert client.post("/").status_code == 200, "without a cookie a request acts for nobody"
    first = client.get("/", headers=browser).headers.get_list("set-cookie")
    assert ["HttpOnly" in line for line in first] == [True, False]
    assert all("SameSite=None; Secure; Partitioned" in line for line in first)
    token = client.cookies[TOKEN_COOKIE]
    assert "set-cookie" not in client.get("/", headers=browser).headers
    for wrong in ({}, {"x-upperson-token": ""}, {"x-upperson-token": identity.token("somebody else")}):
        refused = client.post("/", headers=wrong)
        assert (refused.status_code, "reload it" in refused.text) == (403, True)
    assert client.post("/", headers={"x-upperson-token": token}).status_code == 200
    forged = browser | {"cookie": f"{COOKIE}={client.cookies[COOKIE]}; {TOKEN_COOKIE}=forged"}
    client.cookies.clear()
    assert f"{TOKEN_COOKIE}={token}" in client.get("/", headers=forged).headers["set-cookie"]
    client.cookies.clear()
    assert client.post("/", headers={"cookie": "session=signed in by OAuth"}).status_code == 403
    assert client.post("/", headers={"cookie": "of=the proxy"}).status_code == 200
