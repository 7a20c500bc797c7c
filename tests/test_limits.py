from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.app_errors import NotAllowedError, RequestError
from app.pages.search_page import actions
from app.search.views import SearchRequest
from app.services import Services
from app.settings import Settings, load_settings
from app.web.identity import Identity, is_signed_in
from app.web.limits import Limit, address_of, current_address, network_of


def test_a_limit_is_for_each_visitor_and_passes_with_time() -> None:
    limit = Limit(2, "searches")
    limit.count("ada", now=0)
    limit.count("ada", now=30)
    limit.count("bob", now=30)
    with pytest.raises(RequestError, match="at most 2 searches a minute: try again in 21 seconds"):
        limit.count("ada", now=40)
    limit.count("ada", now=60)
    for second in range(100):
        Limit(0, "searches").count("ada", now=second)


def test_new_visitors_of_one_address_share_a_limit() -> None:
    limit = Limit(2, "searches")
    for number in range(8):
        limit.count(f"session:{number}", "192.0.2.1", now=0)
    with pytest.raises(RequestError, match="at most 8 searches a minute from one address"):
        limit.count("session:9", "192.0.2.1", now=1)
    limit.count("session:9", "192.0.2.2", now=1)


def test_amounts_count_as_many() -> None:
    limit = Limit(10, "uploads")
    limit.count("ada", amount=9, now=0)
    with pytest.raises(RequestError, match="at most 10 uploads"):
        limit.count("ada", amount=2, now=1)
    limit.count("ada", amount=1, now=1)
    with pytest.raises(RequestError, match="at most 10 uploads"):
        limit.count("eve", amount=900, now=1)


def test_an_ipv6_visitor_has_half_of_the_address() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"


@pytest.mark.parametrize(
    ("forwarded", "behind_proxy", "address"),
    [
        (["6.6.6.6, 10.0.0.1"], True, "10.0.0.1"),
        (["6.6.6.6", "10.0.0.2"], True, "10.0.0.2"),
        (["6.6.6.6"], False, "192.0.2.1"),
        ([], True, "192.0.2.1"),
        ([""], True, "unknown"),
    ],
)
def test_only_a_proxys_last_hop_is_believed(forwarded: list[str], behind_proxy: bool, address: str) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope = {"headers": headers, "client": ("192.0.2.1", 5000)}
    assert address_of(scope, behind_proxy=behind_proxy) == address


def test_searches_of_new_sessions_count_for_their_address(services: Services) -> None:
    services.searching.limit = Limit(1, "searches")
    token = current_address.set("192.0.2.7")
    try:
        for number in range(4):
            services.search(SearchRequest("a man"), f"session:{number}")
        with pytest.raises(RequestError, match="from one address"):
            services.search(SearchRequest("a man"), "session:new")
    finally:
        current_address.reset(token)


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
            lambda: actions(services)["browse"]({"filters": None}, "cookie:x"),
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
    assert settings.behind_proxy


def test_sign_in_sets_the_limits_of_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = ("searches_per_minute", "uploads_per_minute", "upload_megabytes_per_minute")
    assert [getattr(Settings(), name) for name in limits] == [0, 0, 0]
    monkeypatch.setenv("UPPERSON_SIGN_IN", "1")
    assert [getattr(load_settings(), name) for name in limits] == [60, 10, 100]
    monkeypatch.setenv("UPPERSON_SEARCHES_PER_MINUTE", "7")
    assert load_settings().searches_per_minute == 7


@pytest.mark.parametrize(
    ("host", "share", "loopback"),
    [("127.0.0.1", False, True), ("localhost", False, True), ("::1", False, True), ("0.0.0.0", False, False),
     ("192.168.1.5", False, False), ("people.example", False, False), ("127.0.0.1", True, False)],
)  # fmt: skip
def test_settings_know_whether_only_this_machine_comes_in(host: str, share: bool, loopback: bool) -> None:
    assert Settings(host=host, share=share).loopback is loopback


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
