"""The whole loop on a really running app, through its web API: search, mark, fine-tune, promote."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client

from core import Backbone, UPPerson, load_version
from tests.conftest import RunningApp, start_app
from train import pedestrians
from train.embed import embed_captions, embed_pixels
from train.metrics import rank_metrics
from train.pedestrians import Domain

TOP = 10
SAMPLE_SIZE = "600"
BY_HAND = {"UPPERSON_SAMPLE_SIZE": SAMPLE_SIZE, "UPPERSON_TRAIN_AFTER_MARKS": "100000"}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with the full sample gallery, drawn and embedded."""
    folder = tmp_path_factory.mktemp("drawn") / "data"
    start_app(folder, **BY_HAND).stop()
    return folder


@pytest.fixture
def app(drawn: Path, cache: Path, tmp_path: Path) -> Iterator[RunningApp]:
    shutil.copytree(drawn, tmp_path / "data")
    (tmp_path / "data" / "cache").symlink_to(cache)
    running = start_app(tmp_path / "data", **BY_HAND)
    yield running
    running.stop()


def call(client: Client, name: str, *arguments: Any) -> Any:
    return client.predict(*arguments, api_name=f"/{name}")


def mark_by(client: Client, judge: Any, *, captions: int = 30) -> int:
    """Search street captions of gallery people and mark the first results of each; the number of hits given."""
    takes = pedestrians.takes("street", "users", 150, 4)
    asked = random.Random(0).sample(takes, captions)
    hits = 0
    for take in asked:
        result = call(client, "search", take.caption(annotator=1), None, "", TOP, {})
        verdicts = [judge(candidate["pid"] == f"sample-{take.pid:04d}") for candidate in result["candidates"]]
        hits += verdicts.count("hit")
        sent = [
            client.submit(result["query_id"], candidate["image_id"], verdict, api_name="/mark")
            for candidate, verdict in zip(result["candidates"], verdicts, strict=True)
        ]
        for mark in sent:
            mark.result(timeout=30)
    assert call(client, "marks_stats")["total"] == captions * TOP
    return hits


def train(client: Client) -> dict[str, Any]:
    """Start fine-tuning and wait for its end; the job."""
    job = call(client, "train")
    end = time.monotonic() + 900
    while time.monotonic() < end:
        found = next(row for row in call(client, "jobs") if row["id"] == job["id"])
        if found["state"] in ("done", "failed", "cancelled"):
            return dict(found)
        time.sleep(1)
    raise AssertionError(f"fine-tuning did not end: {found}")


def active(client: Client) -> str:
    return str(next(row["id"] for row in call(client, "versions") if row["status"] == "active"))


def r1(models: tuple[UPPerson, UPPerson], domain: Domain, cache: Path) -> tuple[float, ...]:
    """R@1 of each, on people whom neither `mini` nor any user has ever seen."""
    data = pedestrians.load(pedestrians.takes(domain, "test", 500, 2), models[0].backbone.image_size, cache=cache)
    scores = (embed_captions(model, data.captions) @ embed_pixels(model, data.pixels).T for model in models)
    return tuple(rank_metrics(each, data.pids, data.pids).r1 for each in scores)


@pytest.mark.long
def test_truthful_marks_go_round_the_whole_loop(app: RunningApp, mini: Backbone, cache: Path) -> None:
    client = Client(app.url, verbose=False)
    before = call(client, "search", "a man in a red shirt", None, "", 5, {})
    assert mark_by(client, lambda match: "hit" if match else "miss", captions=100) >= 60
    job = train(client)
    assert job["state"] == "done", job
    assert job["result"]["decision"] == "promoted", job
    version = job["result"]["version"]
    assert version == "mini-v1"
    assert active(client) == version

    end = time.monotonic() + 15
    while (after := call(client, "search", "a man in a red shirt", None, "", 5, {}))["version"] != version:
        assert time.monotonic() < end, "the new version does not serve"
        time.sleep(0.2)
    assert [c["score"] for c in after["candidates"]] != [c["score"] for c in before["candidates"]]

    models = UPPerson(mini), load_version(mini, app.data_dir / "models" / version)
    (street_before, street_after), (studio_before, studio_after) = (
        r1(models, domain, cache) for domain in ("street", "studio")
    )
    assert street_after >= street_before + 0.08
    assert studio_after >= studio_before - 0.02

    call(client, "rollback")
    assert active(client) == "mini-v0"


@pytest.mark.long
def test_random_marks_change_nothing_that_is_served(app: RunningApp) -> None:
    client = Client(app.url, verbose=False)
    coin = random.Random(1)
    mark_by(client, lambda _match: coin.choice(["hit", "miss"]))
    job = train(client)
    assert job["state"] == "done", job
    assert job["result"]["decision"] in ("rejected", "suspicious", "undecided"), job
    assert active(client) == "mini-v0"


@pytest.mark.long
def test_inverted_marks_wait_for_an_administrator(app: RunningApp) -> None:
    client = Client(app.url, verbose=False)
    mark_by(client, lambda match: "miss" if match else "hit")
    job = train(client)
    assert job["state"] == "done", job
    assert job["result"]["decision"] == "suspicious", job
    assert active(client) == "mini-v0"
    assert "inverted" in job["message"]
