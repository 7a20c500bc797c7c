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
from app.web.identity import COOKIE, Identity, IdentityCookie


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
