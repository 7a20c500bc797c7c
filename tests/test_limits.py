from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from app.app_errors import NotAllowedError, RequestError
from app.search.views import SearchRequest
from app.services import Services
from app.settings import Settings
from app.web.identity import COOKIE, Identity, is_signed_in
from app.web.limits import Limit, UploadLimit


def test_a_limit_is_for_each_visitor_and_passes_with_time() -> None:
    limit = Limit(2, "searches")
    limit.count("ada", 0)
    limit.count("ada", 30)
    limit.count("bob", 30)
    with pytest.raises(RequestError, match="at most 2 searches a minute: try again in 21 seconds"):
        limit.count("ada", 40)
    limit.count("ada", 60)
    for second in range(100):
        Limit(0, "searches").count("ada", second)


def test_without_sign_in_people_search_and_do_not_mark(data_dir: Path) -> None:
    settings = Settings(
        data_dir=data_dir, sample_size=4, adapt="off", sign_in=True, searches_per_minute=2, admins=("eve",)
    )
    services = Services.open(settings)
    try:
        found = services.search(SearchRequest("a man"), "cookie:x")
        image = found.candidates[0].image_id
        for act in (
            lambda: services.mark("cookie:x", found.query_id, image, "hit"),
            lambda: services.mark_rest("session:x", found.query_id, [image]),
        ):
            with pytest.raises(NotAllowedError, match="sign in at the top"):
                act()
        assert services.stats()["total"] == 0
        mine = services.search(SearchRequest("a man"), "ada")
        services.mark("ada", mine.query_id, image, "hit")
        assert services.stats()["total"] == 1
        assert (services.is_admin("eve"), services.is_admin("ada"), services.is_admin("cookie:x")) == (
            True,
            False,
            False,
        )
        services.search(SearchRequest("a man"), "cookie:x")
        for ask in (
            lambda: services.search(SearchRequest("a man"), "cookie:x"),
            lambda: services.more(found.query_id, "cookie:x"),
        ):
            with pytest.raises(RequestError, match="at most 2 searches a minute"):
                ask()
    finally:
        services.close()


def test_a_space_asks_for_sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not Settings().sign_in
    monkeypatch.setenv("SPACE_ID", "ada/search")
    settings = Settings()
    assert settings.sign_in
    assert settings.host == "0.0.0.0"
    assert (settings.searches_per_minute, settings.uploads_per_minute) == (60, 10)


def test_the_name_of_a_hugging_face_sign_in_counts_while_it_is_valid(tmp_path: Path) -> None:
    identity = Identity.open(tmp_path / "secret")

    def request(name: str, expires_at: float) -> Any:
        info = {"userinfo": {"preferred_username": name}, "expires_at": expires_at}
        inner = SimpleNamespace(scope={"session": {"oauth_info": info}})
        return SimpleNamespace(username=None, cookies={}, session_hash="s", request=inner)

    assert identity.user_of(request("ada", 2e10)) == "ada"
    assert is_signed_in("ada")
    assert not is_signed_in("session:s")
    assert identity.user_of(request("ada", 1)) == "session:s"
    assert identity.user_of(request("cookie:eve", 2e10)) == "session:s"


def test_uploads_are_limited_for_each_visitor(tmp_path: Path) -> None:
    identity = Identity.open(tmp_path / "secret")
    routes = [
        Route(path, lambda _: PlainTextResponse("taken"), methods=["POST"]) for path in ("/api/upload", "/search")
    ]
    limit = Middleware(UploadLimit, most=2, identity=identity)
    client = TestClient(Starlette(routes=routes, middleware=[limit]))

    def upload(**headers: str) -> int:
        return client.post("/api/upload", headers=headers).status_code

    one, other = (f"{COOKIE}={identity.new_cookie()}" for _ in range(2))
    assert [upload(cookie=one) for _ in range(3)] == [200, 200, 429]
    assert [upload(cookie=other), upload(cookie="upperson_user=forged"), upload(), upload()] == [200, 200, 200, 429]
    assert [upload(**{"x-forwarded-for": f"6.6.6.{n}, 10.0.0.1"}) for n in range(3)] == [200, 200, 429]
    refused = client.post("/api/upload", headers={"cookie": one})
    assert "at most 2 uploads a minute: try again in" in refused.json()["detail"]
    assert all(client.post("/search", headers={"cookie": one}).status_code == 200 for _ in range(5))
