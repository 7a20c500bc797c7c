"""What load balancers and monitors ask."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from app.process.health import health_routes
from app.services import Services
from tests.conftest import RunningApp


@pytest.fixture
def client(services: Services) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=health_routes(services))) as client:
        yield client


def test_all_is_well(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    answer = client.get("/readyz")
    assert (answer.status_code, set(answer.json().values())) == (200, {"ready"})
    assert list(answer.json()) == ["status", "database", "gallery", "model"]


def test_what_is_gone_is_named_and_nothing_else(services: Services, client: TestClient) -> None:
    services.state.gallery.drop_version(services.retriever.serving.version)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "not ready", "database": "ready", "gallery": "ready", "model": "not ready"}
    shutil.rmtree(services.settings.gallery_dir)
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200, "an app without its disk lives: to start it again helps nobody"


def test_the_running_app_answers(running_app: RunningApp) -> None:
    for path, status in (("healthz", "alive"), ("readyz", "ready")):
        with urllib.request.urlopen(f"{running_app.url.rstrip('/')}/{path}", timeout=30) as answer:
            assert json.load(answer)["status"] == status
