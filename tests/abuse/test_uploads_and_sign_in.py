"""Limits of uploads, and guessed passwords, on the real middleware around small apps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gradio.route_utils import GradioMultiPartParser
from starlette.applications import Starlette
from starlette.formparsers import MultiPartException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from app.app_errors import RequestError
from app.web.guard import Guard, GuardOptions
from app.web.identity import COOKIE, Identity
from app.web.passwords import add_user, checker
from app.web.sign_in import FREE_GUESSES, Guesses, SignIn, verified
from app.web.upload_limits import UploadLimit, UploadOptions

UPLOAD = "/gradio_api/upload"


def uploading(folder: Path, identity: Identity, **limits: Any) -> TestClient:
    """Gradio's own parser behind the limit; it answers how many files came."""

    async def taken(request: Request) -> Response:
        parser = GradioMultiPartParser(request.headers, request.stream(), upload_dir=folder, max_file_size=50_000_000)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            return PlainTextResponse(error.message, status_code=400)
        return JSONResponse(len(form.getlist("files")))

    options = UploadOptions(folder=folder, **({"files": 0, "megabytes": 0, "quota_megabytes": 1000} | limits))
    middleware = [
        Middleware(Guard, options=GuardOptions()),
        Middleware(UploadLimit, options=options, identity=identity),
    ]
    return TestClient(Starlette(routes=[Route(UPLOAD, taken, methods=["POST"])], middleware=middleware))


def files(count: int, size: int = 10) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (f"{number}.bin", b"-" * size)) for number in range(count)]


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity.open(tmp_path / "secret")


def test_every_file_of_an_upload_counts(tmp_path: Path, identity: Identity) -> None:
    client = uploading(tmp_path, identity, files=10)
    cookie = {"cookie": f"{COOKIE}={identity.new_cookie()}"}
    assert client.post(UPLOAD, files=files(9), headers=cookie).json() == 9
    left = set(tmp_path.iterdir())
    refused = client.post(UPLOAD, files=files(900), headers=cookie)
    assert refused.status_code == 429
    assert "at most 10 uploads a minute" in refused.json()["detail"]
    assert set(tmp_path.iterdir()) == left, "nothing stays of what was refused"
    assert client.post(UPLOAD, files=files(1), headers=cookie).json() == 1


def test_a_new_cookie_does_not_evade_the_limit(tmp_path: Path, identity: Identity) -> None:
    client = uploading(tmp_path, identity, files=5)
    answers = [
        client.post(UPLOAD, files=files(1), headers={"cookie": f"{COOKIE}={identity.new_cookie()}"}).status_code
        for _ in range(22)
    ]
    assert answers == [200] * 20 + [429] * 2
    assert client.post(UPLOAD, files=files(1), headers={"x-forwarded-for": "6.6.6.6"}).status_code == 429


def test_bytes_of_uploads_are_counted(tmp_path: Path, identity: Identity) -> None:
    client = uploading(tmp_path, identity, megabytes=3)
    cookie = {"cookie": f"{COOKIE}={identity.new_cookie()}"}
    assert client.post(UPLOAD, files=files(1, 1_500_000), headers=cookie).status_code == 200
    refused = client.post(UPLOAD, files=files(1, 1_500_000), headers=cookie)
    assert (refused.status_code, "at most 3 megabytes of uploads" in refused.text) == (429, True)


def test_all_uploads_together_have_a_quota(tmp_path: Path, identity: Identity) -> None:
    client = uploading(tmp_path, identity, quota_megabytes=4)
    (tmp_path / "old").write_bytes(b"-" * 3_000_000)
    refused = client.post(UPLOAD, files=files(1, 2_000_000))
    assert (refused.status_code, "uploads may take 4 MB together" in refused.text) == (507, True)
    assert client.post(UPLOAD, files=files(1, 500_000)).status_code == 200


def test_an_upload_says_its_length(tmp_path: Path, identity: Identity) -> None:
    client = uploading(tmp_path, identity)
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post(UPLOAD, content=iter([b"--x--\r\n"]), headers=kind).status_code == 411


def test_a_full_disk_refuses_uploads_early(tmp_path: Path, identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.web import upload_limits

    monkeypatch.setattr(upload_limits, "_RESERVE_BYTES", 2**62)
    refused = uploading(tmp_path, identity).post(UPLOAD, files=files(1))
    assert (refused.status_code, "disk is full" in refused.text) == (507, True)


def signing_in(check: Callable[[str, str], bool]) -> TestClient:
    async def login(request: Request) -> Response:
        form = await request.form()
        return JSONResponse(verified(str(form["username"]), str(form["password"])))

    middleware = [Middleware(Guard, options=GuardOptions()), Middleware(SignIn, check=check)]
    return TestClient(Starlette(routes=[Route("/login", login, methods=["POST"])], middleware=middleware))


def wait_of(guesses: Guesses, name: str, address: str, now: float) -> int:
    """Seconds that a guess at this moment has to wait; 0 if it counts."""
    try:
        guesses.begin(name, address, now)
    except RequestError as error:
        return int(str(error).split(" in ")[1].split(" ")[0])
    return 0


def test_guessed_passwords_wait_longer_each_time() -> None:
    guesses, now, waits = Guesses(), 0.0, []
    for _ in range(FREE_GUESSES + 13):
        waits.append(wait_of(guesses, "ada", "192.0.2.1", now))
        if waits[-1]:
            now += waits[-1]
            assert wait_of(guesses, "ada", "192.0.2.1", now) == 0
    assert waits == [0] * FREE_GUESSES + [2, 3, 5, 9, 17, 33, 65, 129, 257, 513, 901, 901, 901]
    guesses.succeed("ada", "192.0.2.1")
    assert [wait_of(guesses, "ada", "192.0.2.1", now) for _ in range(FREE_GUESSES)] == [0] * FREE_GUESSES


def test_the_owner_of_a_name_waits_a_minute_at_most() -> None:
    guesses = Guesses()
    waits = [wait_of(guesses, "ada", f"192.0.{n // 250}.{n % 250}", float(n)) for n in range(500)]
    assert 40 < max(waits) <= 61
    assert wait_of(guesses, "ada", "198.51.100.1", 600.0) == 0


def test_guesses_of_many_names_wait_by_address() -> None:
    guesses = Guesses()
    assert [wait_of(guesses, f"name {n}", "192.0.2.1", 0.0) > 0 for n in range(8)] == [False] * 5 + [True] * 3
    assert wait_of(guesses, "name 0", "192.0.2.2", 0.0) == 0


def test_passwords_are_checked_with_limits_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_user(tmp_path / "auth", "ada", "long enough")
    client = signing_in(checker(tmp_path / "auth"))
    right = {"username": "ada", "password": "long enough"}
    assert client.post("/login", data=right).json() is True
    assert client.post("/login", files={key: (None, value) for key, value in right.items()}).json() is True
    wrong = {"username": "ada\nforged line", "password": "wrong"}
    answers = [client.post("/login", data=wrong).status_code for _ in range(FREE_GUESSES + 1)]
    assert answers == [400] * FREE_GUESSES + [429]
    assert len(caplog.messages) == FREE_GUESSES + 1
    assert all("\n" not in message and "testclient" in message for message in caplog.messages)
    assert client.post("/login", content=b"", headers={"content-type": "multipart/form-data"}).status_code in (400, 429)


def test_checking_a_password_holds_nobody_else_up() -> None:
    checking, asked = threading.Event(), threading.Event()

    def check(*_: str) -> bool:
        checking.set()
        return asked.wait(10)

    with signing_in(check) as client:
        thread = threading.Thread(
            target=client.post, args=("/login",), kwargs={"data": {"username": "a", "password": "b"}}
        )
        thread.start()
        assert checking.wait(10)
        began = time.monotonic()
        assert client.get("/nothing").status_code == 404
        assert time.monotonic() - began < 5
        asked.set()
        thread.join(10)
