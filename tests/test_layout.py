"""The pages without a browser: what they send their scripts, and what they refuse."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.doctor import check_state
from app.pages import learning_page, page_data
from app.pages.component import STATIC
from app.pages.layout import build, launch_options, rules
from app.pages.search_page import EXAMPLES, PAGE
from app.search.views import VersionView
from app.services import SearchRequest, Services
from app.settings import Settings
from store import JobRow
from tests.conftest import SAMPLE, add_version

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def in_loop(work: Callable[[], Any]) -> Any:
    """`work()` inside an event loop: outside of one Gradio makes loops of its own and leaves them open."""

    async def run() -> Any:
        return work()

    with ThreadPoolExecutor(1) as thread:  # where none is running yet
        return thread.submit(lambda: asyncio.run(run())).result()


def version(name: str, **more: Any) -> VersionView:
    given: dict[str, Any] = {
        "id": name, "backbone": "mini", "parent": None, "status": "candidate", "created_at": NOW, "metrics": {},
        "decision": "", "reason": "", "marks": {}, "serving": False,
    }  # fmt: skip
    return VersionView(**(given | more))


def job(**more: Any) -> JobRow:
    given: dict[str, Any] = {
        "id": 7, "kind": "finetune", "state": "running", "stage": "training fold 1 of 2", "fraction": 0.25,
        "message": "", "params": {}, "result": {}, "created_at": NOW, "started_at": NOW, "finished_at": None,
        "heartbeat_at": NOW, "pid": 1,
    }  # fmt: skip
    return JobRow(**(given | more))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, drawn: Path) -> Iterator[Services]:
    """Services for tests that mark nothing that stays, or do not mind what others marked."""
    folder = tmp_path_factory.mktemp("ui") / "data"
    shutil.copytree(drawn, folder)
    opened = Services.open(Settings(data_dir=folder, sample_size=SAMPLE, adapt="off"))
    yield opened
    opened.close()


# What the learning page shows


def test_metrics_are_flattened_and_counts_left_out() -> None:
    metrics = {
        "street": {"r1": 0.27, "mean_ap": 0.3},
        "hits": 12,
        "base_r1": 1.0,
        "loss": 3.5,
        "note": "x",
        "none": None,
    }
    assert learning_page.flat(metrics) == {"street r1": 0.27, "street mean_ap": 0.3, "base_r1": 1.0}


def test_the_table_has_the_first_ranks_before_all_else() -> None:
    versions = (
        version("mini-v0", metrics={"studio": {"mean_ap": 0.5, "r1": 0.7}, "street": {"r1": 0.2}}),
        version("mini-v1", metrics={"held_out_precision": 0.6, "base_r1": 0.7}),
    )
    columns = learning_page.metric_columns(versions)
    assert [column["label"] for column in columns] == ["R@1 studio", "R@1 street", "R@1 base", "Held-out precision"]
    # Every run holds out other marks: only the rest can be set against the parent's.
    assert [column["comparable"] for column in columns] == [True, True, True, False]


def view(services: Services, **more: Any) -> dict[str, Any]:
    return learning_page.board(dataclasses.replace(services.learning_view("cookie:me"), **more), services)


def test_a_run_under_way(shared: Services) -> None:
    shown = view(shared, job=job(started_at=datetime.now(UTC) - timedelta(seconds=30)))["job"]
    assert (shown["title"], shown["fraction"], shown["cancelling"]) == ("Training fold 1 of 2", 0.25, False)
    assert shown["elapsed"] == pytest.approx(30, abs=5)
    assert view(shared, job=job(state="cancelling"))["job"]["title"] == "Cancelling"


@pytest.mark.parametrize(
    ("stage", "title", "said"),
    [
        ("queued", "Queued", "The training process starts."),
        ("drawing known people", "Drawing known people", "so that it does not forget them"),
        ("reading the gallery", "Reading the gallery", "Reads pictures of the gallery"),
    ],
)
def test_a_run_that_prepares_says_what_it_does(shared: Services, stage: str, title: str, said: str) -> None:
    shown = view(shared, job=job(stage=stage, fraction=0.0))["job"]
    assert shown["title"] == title
    assert said in shown["message"]
    assert view(shared, job=job(stage=stage, message="About 3 minutes."))["job"]["message"] == "About 3 minutes."


@pytest.mark.parametrize(
    ("ended", "tone", "title"),
    [
        ({"state": "done", "result": {"decision": "promoted", "version": "mini-v1"}}, "good", "mini-v1 was promoted"),
        ({"state": "done", "result": {"decision": "rejected", "version": "mini-v2"}}, "plain", "mini-v2 was rejected"),
        ({"state": "done", "result": {"decision": "undecided", "version": None}}, "plain", "could not decide"),
        ({"state": "done", "result": {"decision": "suspicious", "version": None}}, "bad", "nothing was trained"),
        ({"state": "failed", "message": "out of memory in /srv/secret/place.py"}, "bad", "failed"),
        ({"state": "cancelled"}, "plain", "cancelled"),
    ],
)
def test_how_the_last_run_ended(shared: Services, ended: dict[str, Any], tone: str, title: str) -> None:
    shown = view(shared, last_job=job(finished_at=NOW + timedelta(seconds=61), **ended))["last"]
    assert (shown["tone"], shown["took"]) == (tone, 61)
    assert title in shown["title"]
    assert "/srv" not in shown["reason"]


def test_a_version_serves_once_the_app_answers_by_it(shared: Services) -> None:
    ended = job(state="done", finished_at=NOW, result={"decision": "promoted", "version": "mini-v1"})
    new, old = version("mini-v1", status="active"), version("mini-v0", status="base", serving=True)
    shown = view(shared, serving="mini-v0", versions=(new, old), last_job=ended)
    assert [row["status"] for row in shown["versions"]] == ["promoted", "serving"]
    assert shown["last"]["title"] == "mini-v1 was promoted"

    new, old = dataclasses.replace(new, serving=True), dataclasses.replace(old, serving=False)
    shown = view(shared, serving="mini-v1", versions=(new, old), last_job=ended)
    assert [row["status"] for row in shown["versions"]] == ["serving", "base"]
    assert shown["last"]["title"] == "mini-v1 was promoted and is in use"
    undecided = job(state="done", finished_at=NOW, result={"decision": "undecided", "version": "mini-v1"})
    shown = view(shared, serving="mini-v1", versions=(new, old), last_job=undecided)
    assert shown["last"]["title"] == "The quality check could not decide", "it was promoted by hand"


def test_a_version_that_learnt_what_was_forgotten_is_flagged(services: Services) -> None:
    name, state = add_version(services), services.state
    found = services.search(SearchRequest("a man in red"), "me")
    image_id = found.candidates[0].image_id
    services.mark("me", found.query_id, image_id, "hit")
    with state.database.write() as connection:
        connection.exec_driver_sql("UPDATE versions SET last_event = 1 WHERE id = ?", (name,))
    assert [row["forgotten"] for row in view(services)["versions"]] == ["", ""]
    state.deletion.forget([image_id])
    rows = {row["id"]: row["forgotten"] for row in view(services)["versions"]}
    said = "It may have learnt from a picture that was forgotten since: fine-tune again and promote that one instead."
    assert rows == {name: said, "mini-v0": ""}
    backbone = services.retriever.backbone
    assert check_state(state, backbone).findings == (), "it does not serve"
    services.promote(name, "me")
    assert [f.about for f in check_state(state, backbone).findings] == [f"version {name}"]


def test_why_buttons_are_disabled(shared: Services) -> None:
    assert "mark at least one result as a hit" in view(shared, hits=0)["start"]["why_not"]
    assert view(shared, hits=1)["start"]["why_not"] == ""
    assert "administrator" in view(shared, hits=1, may_train=False)["start"]["why_not"]
    assert view(shared)["roll_back"] == {"to": None, "why_not": "No other version has served before this one."}


def test_how_far_the_next_training_is(services: Services) -> None:
    assert page_data.until(services) == "200 more, 10 of them hits, until the next training"
    result = services.search(SearchRequest(text="a man"), "cookie:me")
    services.mark("cookie:me", result.query_id, result.candidates[0].image_id, "hit")
    services.mark_rest("cookie:me", result.query_id, [one.image_id for one in result.candidates[1:4]])
    assert page_data.tally(services, "cookie:me") == {
        "total": 4, "hits": 1, "misses": 3, "wrong_person": 0,
        "until": "196 more, 9 of them hits, until the next training",
    }  # fmt: skip
    assert page_data.tally(services, "cookie:you")["total"] == 0


# Nothing from elsewhere, nothing evaluated


def test_templates_hold_nothing_that_is_evaluated(shared: Services) -> None:
    parts = [block for block in in_loop(lambda: build(shared)).blocks.values() if isinstance(block, gr.HTML)]
    assert len(parts) >= 5
    assert [part.html_template for part in parts if re.search(r"\$\{|\{\{", part.html_template)] == []


def test_scripts_build_nodes_and_never_markup() -> None:
    for file in STATIC.glob("*.js"):
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", file.read_text()
        )
        assert found == [], file.name


def test_nothing_is_fetched_from_elsewhere() -> None:
    options = launch_options()
    assert options["theme"]._stylesheets == []
    for text in (options["css"], *(file.read_text() for file in STATIC.glob("*.js"))):
        assert set(re.findall(r"https?://[^\"')\s]+", text)) <= {"http://www.w3.org/2000/svg"}  # a name, not an address
        assert "@import" not in text


def test_examples_are_words_the_demo_model_knows(shared: Services) -> None:
    assert {text: shared.retriever.backbone.unknown_words(text) for text in EXAMPLES} == dict.fromkeys(EXAMPLES, ())


# What the scripts can ask of the server


class Page:
    """Calls the grid's actions as the script does."""

    def __init__(self, client: TestClient, services: Services) -> None:
        self.client, self.services = client, services
        parts = client.get("/config").json()["components"]
        self.parts = {part["props"].get("elem_id"): part["id"] for part in parts}

    def ask(self, name: str, payload: Any, *, part: str = "up-results", session: str = "one") -> dict[str, Any]:
        if isinstance(payload, dict) and name in ("mark", "undo", "take_back"):
            payload = {"op": uuid4().hex} | payload
        body = {"component_id": self.parts[part], "fn_name": name, "data": payload, "session_hash": session}
        reply = self.client.post("/gradio_api/component_server/", json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def search(self, *, session: str = "one", user: str = "") -> tuple[str, list[str]]:
        request = SearchRequest(text="a woman in a red coat", k=PAGE)
        result = self.services.search(request, user or f"session:{session}")
        return result.query_id, [candidate.image_id for candidate in result.candidates]


@pytest.fixture(scope="module")
def page(shared: Services) -> Iterator[Page]:
    def served() -> FastAPI:
        return gr.mount_gradio_app(FastAPI(), build(shared), path="/", ssr_mode=False)

    with TestClient(in_loop(served)) as client:
        yield Page(client, shared)


def test_marks_and_undo(page: Page) -> None:
    query, images = page.search()
    reply = page.ask("mark", {"query_id": query, "image_ids": images[:1], "verdict": "hit"})
    assert (reply["ok"], reply["tally"]["hits"], reply["serving"]) == (True, 1, "mini-v0")
    reply = page.ask("mark", {"query_id": query, "image_ids": images[1:], "verdict": "miss"})
    assert reply["tally"]["misses"] == len(images) - 1
    reply = page.ask("undo", {"query_id": query})
    assert (len(reply["undone"]), reply["verdicts"]) == (len(images) - 1, {images[0]: "hit"})
    reply = page.ask("more", {"query_id": query})
    assert [one["rank"] for one in reply["candidates"]] == list(range(PAGE + 1, 41))
    assert reply["duplicates"] == {}
    op = {"op": uuid4().hex, "query_id": query}
    reply = page.ask("judge", op | {"image_id": images[0], "verdict": "wrong_person"}, part="up-marks")
    assert (reply["tally"]["hits"], reply["tally"]["wrong_person"]) == (0, 1)
    op["op"] = uuid4().hex
    reply = page.ask("take_back", op | {"image_ids": images[:1]}, part="up-marks")
    assert reply["tally"]["total"] == 0
    op |= {"op": uuid4().hex, "image_id": images[0], "verdict": "x"}
    assert "verdict is one of hit" in page.ask("judge", op, part="up-marks")["message"]


def test_who_signed_in_by_a_password_is_who_marks(services: Services) -> None:
    def served() -> FastAPI:
        return gr.mount_gradio_app(FastAPI(), build(services), path="/", auth=("ada", "long enough"), ssr_mode=False)

    with TestClient(in_loop(served)) as client:
        assert client.post("/login", data={"username": "ada", "password": "long enough"}).is_success
        page = Page(client, services)
        query, images = page.search(user="ada")
        assert page.ask("mark", {"query_id": query, "image_ids": images[:1], "verdict": "hit"})["ok"]
        assert [mark.image_id for mark in services.my_marks("ada")] == images[:1]
        client.cookies.clear()
        body = {"component_id": page.parts["up-results"], "fn_name": "undo", "data": {}, "session_hash": "one"}
        assert client.post("/gradio_api/component_server/", json=body).status_code == 401


def test_a_picture_is_described_without_its_folder(page: Page) -> None:
    _, images = page.search()
    reply = page.ask("about", {"image_id": images[0]})
    assert (reply["source"], reply["width"], reply["height"]) == ("sample", 128, 384)
    assert re.fullmatch(r"\d{4}-\d\.jpg", reply["file"])
    assert ["domain", "street"] in reply["metadata"]


def test_only_uploads_are_added(page: Page) -> None:
    for files in ("all", [{"path": "/etc/passwd"}], [None], []):
        reply = page.ask("add", {"files": files}, part="up-tools")
        assert (reply["ok"], len(reply["message"]) > 20) == (False, True), files
    assert page.ask("adding", {}, part="up-tools")["state"] == "none"


WRONG: tuple[tuple[str, Any], ...] = (
    ("mark", None), ("mark", []), ("mark", "x"), ("mark", {}),
    ("mark", {"query_id": 3, "image_ids": ["x"], "verdict": "hit"}),
    ("mark", {"query_id": "f" * 32, "image_ids": ["0" * 64], "verdict": "hit"}),
    ("mark", {"query_id": "{query}", "image_ids": ["0" * 64], "verdict": "hit"}),
    ("mark", {"query_id": "{query}", "image_ids": ["{image}"], "verdict": "perhaps"}),
    ("mark", {"query_id": "{query}", "image_ids": ["{image}"], "verdict": ["hit"]}),
    ("mark", {"query_id": "{query}", "image_ids": "all", "verdict": "miss"}),
    ("mark", {"query_id": "{query}", "image_ids": [1, None], "verdict": "miss"}),
    ("mark", {"query_id": "{query}", "image_ids": [], "verdict": "miss"}),
    ("mark", {"op": "x" * 65, "query_id": "{query}", "image_ids": ["{image}"], "verdict": "miss"}),
    ("more", {"query_id": "../../etc/passwd"}),
    ("undo", {"query_id": {"a": 1}}),
    ("about", {}), ("about", {"image_id": "../app.db"}), ("about", {"image_id": "0" * 64}),
)  # fmt: skip


def test_wrong_arguments_are_refused_in_words(page: Page) -> None:
    query, images = page.search()
    before = page.services.stats()
    given = {"{query}": query, "{image}": images[0]}
    for name, payload in WRONG:
        if isinstance(payload, dict):
            payload = {
                key: given.get(value, value) if isinstance(value, str) else value for key, value in payload.items()
            }
            if payload.get("image_ids") == ["{image}"]:
                payload["image_ids"] = images[:1]
        reply = page.ask(name, payload)
        assert reply["ok"] is False, (name, payload)
        assert len(reply["message"]) > 20, (name, payload)
    assert page.services.stats() == before


def test_others_searches_cannot_be_marked_or_read(page: Page) -> None:
    query, images = page.search(session="one")
    before = page.services.stats()
    for name, payload in (
        ("mark", {"query_id": query, "image_ids": images[:1], "verdict": "hit"}),
        ("mark", {"query_id": query, "image_ids": images, "verdict": "miss"}),
        ("undo", {"query_id": query}),
        ("more", {"query_id": query}),
    ):
        assert page.ask(name, payload, session="two")["ok"] is False, name
    assert page.services.stats() == before


def test_training_without_hits_is_refused_in_words(page: Page) -> None:
    reply = page.ask("train", {}, part="up-learning")
    assert (reply["ok"], "no hit" in reply["message"]) == (False, True)
    reply = page.ask("promote", {"version": "mini-v9"}, part="up-learning")
    assert (reply["ok"], "mini-v9" in reply["message"]) == (False, True)
    assert page.ask("rollback", {}, part="up-learning")["ok"] is False
    assert page.ask("cancel", {}, part="up-learning")["ok"] is False


@pytest.mark.parametrize(
    ("space", "given", "said"),
    [
        (False, {}, []),
        (False, {"sign_in": True}, ["marking needs sign-in"]),
        (False, {"backup_repo": "ada/marks"}, ["come back to an empty disk", "versions do not"]),
        (True, {}, ["marking needs sign-in", "A restart of this Space loses all marks"]),
        (True, {"backup_repo": "ada/marks"}, ["marking needs sign-in", "come back to an empty disk"]),
        (True, {"sign_in": False}, ["A restart of this Space loses all marks"]),
    ],
)
def test_the_page_says_who_may_mark_and_what_a_restart_does(
    monkeypatch: pytest.MonkeyPatch, space: bool, given: dict[str, Any], said: list[str]
) -> None:
    if space:
        monkeypatch.setenv("SPACE_ID", "ada/search")
        monkeypatch.setenv("SYSTEM", "spaces")
    text = rules(Settings(**given))
    assert all(part in text for part in said)
    assert ("sign-in" in text, "restart" in text) == (
        any("sign-in" in part for part in said),
        any("disk" in part or "restart" in part for part in said),
    )
