"""A running app whose disk is full, or whose folder is read-only: searches go on, and all does when it can be written
again."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from gradio_client import Client

from tests.conftest import RunningApp, start_app


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    running = start_app(tmp_path_factory.mktemp("full") / "data")
    yield running
    running.stop()


def let_files_grow(app: RunningApp, *, to: int) -> None:
    """No file of the process can become larger: writing fails as on a full disk."""
    resource.prlimit(app.process.pid, resource.RLIMIT_FSIZE, (to, resource.RLIM_INFINITY))


def test_searches_go_on_while_the_disk_is_full(app: RunningApp) -> None:
    client = Client(app.url, verbose=False)
    before = client.predict("a man", api_name="/search")
    image = before["candidates"][0]["image_id"]
    let_files_grow(app, to=0)
    try:
        found = client.predict("a woman in a red coat", api_name="/search")
        assert len(found["candidates"]) == 24
        assert "could not be recorded" in found["warning"]
        with pytest.raises(Exception, match="has room"):
            client.predict(found["query_id"], found["candidates"][0]["image_id"], "hit", api_name="/mark")
        upload = httpx.post(f"{app.url}gradio_api/upload", files={"files": ("a.png", b"-" * 100)})
        assert upload.status_code >= 400
    finally:
        let_files_grow(app, to=resource.RLIM_INFINITY)
    for asked, picture in ((found, found["candidates"][0]["image_id"]), (before, image)):
        client.predict(asked["query_id"], picture, "hit", api_name="/mark")
    assert client.predict(api_name="/marks_stats")["mine"]["hits"] == 2
    assert client.predict("a man", api_name="/search")["warning"] == ""
    assert httpx.post(f"{app.url}gradio_api/upload", files={"files": ("a.png", b"-" * 100)}).status_code == 200


def locked(app: RunningApp, sign: str) -> bool:
    """Make everything in the data folder unchangeable (+i), or changeable again (-i); whether that can be done here."""
    command = ["chattr", "-R", f"{sign}i", str(app.data_dir)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_searches_go_on_while_the_folder_is_read_only(app: RunningApp) -> None:
    client = Client(app.url, verbose=False)
    before = client.predict("a man", api_name="/search")
    if not locked(app, "+"):
        locked(app, "-")
        pytest.skip("files cannot be made unchangeable here")
    try:
        found = client.predict("a woman in a red coat", api_name="/search")
        assert len(found["candidates"]) == 24
        upload = httpx.post(f"{app.url}gradio_api/upload", files={"files": ("b.png", b"-" * 100)})
        assert upload.status_code >= 400
        with pytest.raises(Exception, match="cannot be written") as refused:
            client.predict("jsonl", api_name="/export")
        assert str(app.data_dir) not in str(refused.value)
    finally:
        assert locked(app, "-")
    for asked in (found, before):
        client.predict(asked["query_id"], asked["candidates"][0]["image_id"], "hit", api_name="/mark")
    assert client.predict(api_name="/marks_stats")["mine"]["hits"] == 2
    assert httpx.post(f"{app.url}gradio_api/upload", files={"files": ("b.png", b"-" * 100)}).status_code == 200
