"""What load balancers and monitors ask."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

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
    assert client.get("/healthz").status_code == 200, "it lives: to start it again helps nobody"


def test_a_gallery_that_is_gone_is_not_ready(services: Services, client: TestClient) -> None:
    shutil.rmtree(services.settings.gallery_dir)
    assert client.get("/readyz").status_code == 503


def test_a_version_that_shares_the_vectors_of_another_is_ready(services: Services, client: TestClient) -> None:
    services.retriever.serving = replace(services.retriever.serving, version="mini-v1")
    assert client.get("/readyz").status_code == 200


def test_the_running_app_answers(running_app: RunningApp) -> None:
    for path, status in (("healthz", "alive"), ("readyz", "ready")):
        with urllib.request.urlopen(f"{running_app.url.rstrip('/')}/{path}", timeout=30) as answer:
            assert json.load(answer)["status"] == status
