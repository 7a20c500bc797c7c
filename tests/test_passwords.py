"""Signing in to a local app: the file of passwords, and a running app that asks for them."""

from __future__ import annotations

import stat
from pathlib import Path

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AuthenticationError
from typer.testing import CliRunner

from app.app_errors import SettingsError, StartError
from app.cli import cli
from app.settings import load_settings
from app.web.passwords import add_user, checker
from tests.conftest import start_app

PASSWORD = "correct horse"


def test_only_the_right_password_of_a_known_name_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "auth"
    assert add_user(file, "ada", PASSWORD)
    assert add_user(file, "bob", "another one")
    check = checker(file)
    assert check("ada", PASSWORD)
    assert check("bob", "another one")
    for name, password in (("ada", "another one"), ("ada", ""), ("eve", PASSWORD), ("", "")):
        assert not check(name, password)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert PASSWORD not in file.read_text()
    assert list(tmp_path.iterdir()) == [file]


def test_a_new_password_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    add_user(tmp_path / "auth", "ada", PASSWORD)
    assert not add_user(tmp_path / "auth", "ada", "a new password")
    assert checker(tmp_path / "auth")("ada", "a new password")
    assert not checker(tmp_path / "auth")("ada", PASSWORD)


@pytest.mark.parametrize(
    ("name", "password"), [("", PASSWORD), ("cookie:x", PASSWORD), ("a b", PASSWORD), ("ada", "short")]
)
def test_a_name_or_password_that_cannot_be_is_refused(tmp_path: Path, name: str, password: str) -> None:
    with pytest.raises(StartError, match="choose a"):
        add_user(tmp_path / "auth", name, password)
    assert not (tmp_path / "auth").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "add-user NAME"), ("", "names nobody"), ("ada:secret\n", "line 1 of"), ("\0", "line 1 of")],
)
def test_a_file_that_cannot_be_used_is_reported(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "auth").write_text(text)
    with pytest.raises(StartError, match=says):
        checker(tmp_path / "auth")


def test_administrators_without_any_sign_in_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPPERSON_ADMINS", "ada")
    with pytest.raises(SettingsError, match="nobody can sign in here"):
        load_settings()
    monkeypatch.setenv("UPPERSON_AUTH_FILE", "data/auth")
    assert load_settings().admins == ("ada",)


def test_an_app_with_a_file_of_passwords_asks_for_them(data_dir: Path, tmp_path: Path) -> None:
    auth = tmp_path / "auth"
    for name in ("ada", "bob"):
        said = CliRunner().invoke(cli, ["add-user", name, "--file", str(auth)], input=f"{PASSWORD}\n{PASSWORD}\n")
        assert said.exit_code == 0, said.output
        assert f"{name} may sign in" in said.output
    app = start_app(data_dir, UPPERSON_AUTH_FILE=str(auth), UPPERSON_ADMINS="ada", UPPERSON_SAMPLE_SIZE="12")
    try:
        for wrong in (None, ("ada", "wrong password"), ("eve", PASSWORD)):
            with pytest.raises((AuthenticationError, ValueError)):
                Client(app.url, auth=wrong, verbose=False)
        bob = Client(app.url, auth=("bob", PASSWORD), verbose=False)
        found = bob.predict("a man in red", None, "", 4, {}, api_name="/search")
        bob.predict(found["query_id"], found["candidates"][0]["image_id"], "hit", api_name="/mark")
        with pytest.raises(Exception, match="only an administrator"):
            bob.predict("parquet", api_name="/export")
        ada = Client(app.url, auth=("ada", PASSWORD), verbose=False)
        assert Path(ada.predict("jsonl", api_name="/export")).read_text().count("\n") == 1
        assert ada.predict(api_name="/marks_stats")["mine"]["total"] == 0
        picture = f"{app.url}picture/{found['candidates'][0]['image_id']}"
        with httpx.Client() as browser:
            for stranger in ({}, {"cookie": "access-token-=made up; access-token-unsecure-=made up"}):
                refused = browser.get(picture, params={"size": "thumb"}, headers=stranger)
                assert (refused.status_code, refused.json()) == (401, {"error": "sign in on the page first"})
                assert "cache-control" not in refused.headers
            assert browser.post(f"{app.url}login", data={"username": "bob", "password": PASSWORD}).is_success
            shown = browser.get(picture, params={"size": "thumb"})
            assert (shown.status_code, shown.headers["content-type"]) == (200, "image/jpeg")
            assert browser.get(f"{app.url}logout?all_session=false").status_code < 400
            assert browser.get(picture, headers={"if-none-match": shown.headers["etag"]}).status_code == 401
    finally:
        app.stop()
