"""The web API, through gradio_client and plain HTTP, on a really running app."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from app.app_errors import RequestError
from app.services import Services
from app.settings import Settings
from app.state import State
from app.web.api import filters_from, picture_file
from core import Backbone
from tests.conftest import ROOT, SAMPLE, RunningApp, candidate

CAPTION = "a woman in a red coat"


@pytest.fixture(scope="module")
def client(running_app: RunningApp, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(running_app.url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


def call(client: Client, name: str, *arguments: Any, **named: Any) -> Any:
    return client.predict(*arguments, **named, api_name=f"/{name}")


def refused(client: Client, name: str, *arguments: Any, **named: Any) -> str:
    with pytest.raises(AppError) as caught:
        call(client, name, *arguments, **named)
    return str(caught.value)


def test_the_names_are_stable(client: Client) -> None:
    names = set(client.view_api(return_format="dict", print_info=False)["named_endpoints"])
    assert {
        "/search", "/mark", "/undo", "/image", "/marks_stats", "/train", "/jobs", "/versions", "/promote", "/rollback",
        "/export", "/more", "/adapt",
        "/cancel", "/forget", "/similar", "/rerank", "/suggest", "/compare",
    } == names  # fmt: skip


def test_a_search_answers_with_ranked_candidates(client: Client) -> None:
    answer = call(client, "search", CAPTION)
    assert set(answer) == {"query_id", "version", "total", "unknown_words", "warning", "candidates"}
    assert (answer["version"], answer["total"], len(answer["candidates"])) == ("mini-v0", SAMPLE, 24)
    first = answer["candidates"][0]
    assert set(first) == {"image_id", "rank", "score", "pid", "camera", "captured_at", "verdict"}
    assert first["pid"].startswith("sample-")
    more = call(client, "more", answer["query_id"], 100)
    assert [c["rank"] for c in more["candidates"]] == list(range(25, SAMPLE + 1))


def test_a_search_is_reranked_by_its_marks(client: Client) -> None:
    answer = call(client, "search", "a man in a black jacket", k=10)
    ids = [candidate["image_id"] for candidate in answer["candidates"]]
    call(client, "mark", answer["query_id"], ids[3], "hit")
    call(client, "mark", answer["query_id"], ids[0], "miss")
    order = call(client, "rerank", answer["query_id"], 10)["candidates"]
    assert [order[0]["image_id"], order[3]["image_id"]] == [ids[0], ids[3]]
    assert [candidate["image_id"] for candidate in order] != ids
    plain = call(client, "rerank", answer["query_id"], 10, False)["candidates"]
    assert [candidate["image_id"] for candidate in plain] == ids
    assert "aligned: input should be a valid boolean" in refused(client, "rerank", answer["query_id"], 10, "no")
    assert [len(call(client, "undo")["undone"]) for _ in range(3)] == [1, 1, 0]


def test_two_versions_are_compared(client: Client, running_app: RunningApp, mini: Backbone) -> None:
    state = State(Settings(data_dir=running_app.data_dir))
    try:
        version = candidate(state, mini, parent="mini-v0")
    finally:
        state.close()
    found = call(client, "compare", "mini-v0", version, CAPTION, k=5)
    assert (found["version_a"], found["version_b"], found["compared"], found["note"]) == (
        "mini-v0",
        version,
        SAMPLE,
        "",
    )
    assert [one["rank"] for one in found["a"]] == [one["rank"] for one in found["b"]] == [1, 2, 3, 4, 5]
    ranked = call(client, "search", CAPTION, k=5)["candidates"]
    assert [one["image_id"] for one in found["a"]] == [one["image_id"] for one in ranked]
    marker = Client(running_app.url, verbose=False)
    search = call(marker, "search", CAPTION, k=5)
    call(marker, "mark", search["query_id"], search["candidates"][1]["image_id"], "hit")
    moves = call(marker, "compare", "mini-v0", version)
    assert (moves["captions"], moves["hits"]) == (1, 1)
    assert all(move["rank_a"] == 2 for move in (*moves["up"], *moves["down"]))
    call(marker, "undo")
    assert "both versions are mini-v0" in refused(client, "compare", "mini-v0", "mini-v0", CAPTION)
    assert "There is no version 'mini-v9'" in refused(client, "compare", "mini-v0", "mini-v9", CAPTION)
    assert "version_b" in refused(client, "compare", "mini-v0", "../etc", CAPTION)
    assert "k: input should be less than or equal to 200" in refused(
        client, "compare", "mini-v0", version, CAPTION, 201
    )


def test_what_to_mark_next_can_be_marked(running_app: RunningApp) -> None:
    client = Client(running_app.url, verbose=False)
    answer = call(client, "search", "a girl with a yellow backpack", k=5)
    call(client, "mark", answer["query_id"], answer["candidates"][0]["image_id"], "hit")
    asked = call(client, "suggest", 3)
    assert set(asked) == {"version", "suggestions", "contested"}
    assert asked["version"] == "mini-v0"
    assert len(asked["suggestions"]) == 3
    one = asked["suggestions"][0]
    assert set(one) == {"query_id", "caption", "image_id", "rank", "score", "version", "reason", "why"}
    assert call(client, "mark", one["query_id"], one["image_id"], "miss")["verdict"] == "miss"
    assert "k: input should be greater than or equal to 1" in refused(client, "suggest", 0)
    assert [len(call(client, "undo")["undone"]) for _ in range(3)] == [1, 1, 0]


def test_filters_keep_what_they_name(client: Client) -> None:
    answer = call(client, "search", CAPTION, k=200, filters={"camera": ["camera 1", "camera 2"], "source": ["sample"]})
    assert 0 < len(answer["candidates"]) < SAMPLE
    assert {c["camera"] for c in answer["candidates"]} <= {"camera 1", "camera 2"}
    none = call(client, "search", CAPTION, filters={"captured_from": "2020-01-01T00:00:00Z"})
    assert none["candidates"] == []
    assert "filters" in none["warning"]


def test_a_picture_finds_itself_and_those_like_it(client: Client) -> None:
    first, second = (c["image_id"] for c in call(client, "search", CAPTION, k=2)["candidates"])
    answer = call(client, "similar", first, 3)
    assert [c["rank"] for c in answer["candidates"]] == [1, 2, 3]
    assert (answer["candidates"][0]["image_id"], answer["warning"]) == (first, "")
    assert answer["candidates"][0]["score"] == pytest.approx(1, abs=1e-5)
    only = call(client, "similar", first, filters={"pid": ["nobody"]})
    assert (only["candidates"], only["total"]) == ([], 0)
    picture = handle_file(call(client, "image", second))
    mixed = [call(client, "search", CAPTION, picture, image_weight=weight)["candidates"] for weight in (0, 0.5, 1)]
    assert mixed[0][0]["image_id"] == first
    assert (mixed[2][0]["image_id"], mixed[2][0]["score"]) == (second, pytest.approx(1, abs=1e-4))
    assert mixed[2][0]["score"] > mixed[1][0]["score"] > mixed[0][0]["score"]


def test_what_should_not_be_there_has_a_weight(client: Client) -> None:
    def scores(**weight: float) -> dict[str, float]:
        answer = call(client, "search", CAPTION, negative="a black backpack", k=SAMPLE, **weight)
        return {c["image_id"]: c["score"] for c in answer["candidates"]}

    plain = {c["image_id"]: c["score"] for c in call(client, "search", CAPTION, k=SAMPLE)["candidates"]}
    assert scores(negative_weight=0.0) == pytest.approx(plain, abs=1e-5)
    assert scores() == scores(negative_weight=0.4)
    assert len({tuple(scores(negative_weight=weight).items()) for weight in (0.0, 0.4, 1.0)}) == 3


def test_marks_are_made_counted_and_undone(running_app: RunningApp) -> None:
    client = Client(running_app.url, verbose=False)
    answer = call(client, "search", CAPTION, k=2)
    image_id = answer["candidates"][0]["image_id"]
    assert call(client, "mark", answer["query_id"], image_id, "hit")["verdict"] == "hit"
    assert call(client, "marks_stats")["mine"]["hits"] == 1
    assert call(client, "search", CAPTION, k=1)["candidates"][0]["verdict"] == "hit"
    other = Client(running_app.url, verbose=False)
    assert "another user" in refused(other, "mark", answer["query_id"], image_id, "miss")
    assert call(other, "marks_stats")["mine"]["total"] == 0
    assert call(client, "undo")["undone"][0]["image_id"] == image_id
    assert call(client, "undo") == {"undone": []}


def test_pictures_come_as_files_and_go_as_uploads(client: Client) -> None:
    image_id = call(client, "search", CAPTION, k=1)["candidates"][0]["image_id"]
    file = call(client, "image", image_id)
    with Image.open(file) as picture:
        assert picture.size == (128, 384)
    assert call(client, "search", "", handle_file(file), k=1)["candidates"][0]["image_id"] == image_id
    both = call(client, "search", text="a red coat", image=handle_file(file), negative="a hat", k=1)
    assert both["candidates"]


def test_no_file_is_left_of_a_picture_forgotten_meanwhile(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    image_id, read = services.state.gallery.ids()[0], services.picture

    def late(image_id: str) -> tuple[bytes, str]:
        found = read(image_id)
        services.forget([image_id], "me")
        return found

    monkeypatch.setattr(services, "picture", late)
    with pytest.raises(RequestError, match="being removed from the gallery"):
        picture_file(services, image_id)
    assert list((services.settings.tmp_dir / "pictures").iterdir()) == []


def test_filters_have_no_secret_names() -> None:
    with pytest.raises(RequestError, match="model: is not known"):
        filters_from({"model": ["x"]})


def test_exports_come_as_files(client: Client) -> None:
    answer = call(client, "search", CAPTION, k=1)
    call(client, "mark", answer["query_id"], answer["candidates"][0]["image_id"], "hit")
    assert pq.read_table(call(client, "export")).num_rows == 1
    assert len(Path(call(client, "export", "jsonl")).read_text().splitlines()) == 1
    with zipfile.ZipFile(call(client, "export", "imagefolder")) as archive:
        assert any(name.endswith("/README.md") for name in archive.namelist())
    assert "at least three people" in refused(client, "export", "cuhk-pedes")
    call(client, "undo")


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("search", {"text": ""}, "describe a person"),
        ("search", {"text": "x" * 10_000}, "at most 1,000"),
        ("search", {"text": "!!!"}, "at least one word"),
        ("search", {"text": 5}, "text: input should be a valid string"),
        ("search", {"text": None}, "text"),
        ("search", {"text": ["a"]}, "text"),
        ("search", {"text": "a man", "k": 0}, "k: "),
        ("search", {"text": "a man", "k": 201}, "k: "),
        ("search", {"text": "a man", "k": "24"}, "k: "),
        ("search", {"text": "a man", "k": True}, "k: "),
        ("search", {"text": "a man", "negative": 3}, "negative: "),
        ("search", {"text": "a man", "filters": []}, "filters: "),
        ("search", {"text": "a man", "filters": {"camera": "c"}}, "filters.camera: "),
        ("search", {"text": "a man", "filters": {"where": "1=1"}}, "known ones are camera"),
        ("search", {"text": "a man", "filters": {"captured_from": "soon"}}, "filters.captured_from: "),
        ("search", {"text": "a man", "image": "/etc/passwd"}, "paths and addresses are never read"),
        ("search", {"text": "a man", "image": "https://example.org/a.jpg"}, "paths and addresses are never read"),
        ("search", {"text": "a man", "image": 7}, "no uploaded file"),
        ("search", {"text": "a man", "image_weight": 1.5}, "image_weight: "),
        ("search", {"text": "a man", "image_weight": "much"}, "image_weight: "),
        ("search", {"text": "a man", "negative": "a bag", "negative_weight": 1.5}, "negative_weight: "),
        ("similar", {"image_id": "../app.db"}, "image_id"),
        ("similar", {"image_id": "0" * 64}, "no picture"),
        ("more", {"query_id": "0" * 32}, "no longer open"),
        ("mark", {"query_id": "0" * 32, "image_id": "0" * 64, "verdict": "hit"}, "no search"),
        ("mark", {"query_id": "x", "image_id": "0" * 64, "verdict": "hit"}, "query_id"),
        ("mark", {"query_id": "0" * 32, "image_id": "../app.db", "verdict": "hit"}, "image_id"),
        ("mark", {"query_id": "0" * 32, "image_id": "0" * 64, "verdict": "good"}, "'hit', 'miss' or 'wrong_person'"),
        ("image", {"image_id": "../app.db"}, "image_id"),
        ("image", {"image_id": "0" * 64}, "no picture"),
        ("image", {"image_id": None}, "image_id"),
        ("promote", {"version": "../mini"}, "version"),
        ("promote", {"version": "mini-v99"}, "mini-v0"),
        ("rollback", {}, "no version to roll back to"),
        ("train", {}, "no hit"),
        ("cancel", {}, "nothing to cancel"),
        ("export", {"format": "csv"}, "'imagefolder' or 'jsonl'"),
        ("export", {}, "mark"),
    ],
)
def test_bad_arguments_get_a_sentence(
    client: Client, running_app: RunningApp, name: str, arguments: dict[str, Any], said: str
) -> None:
    message = refused(client, name, **arguments)
    assert said in message
    assert str(running_app.data_dir) not in message
    assert call(client, "search", "a man", k=1)["candidates"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes"),
        (b"\xff\xd8\xff\xe0 no picture at all", "recognised"),
    ],
)
def test_bad_pictures_get_a_sentence(client: Client, tmp_path: Path, data: bytes, said: str) -> None:
    file = tmp_path / "bad.jpg"
    file.write_bytes(data)
    assert said in refused(client, "search", "", handle_file(str(file)))


def test_a_picture_of_one_pixel_gets_a_sentence(client: Client, tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    assert "1x1" in refused(client, "search", "", handle_file(str(tmp_path / "one.png")))


def raw(app: RunningApp, image: Any) -> str:
    """What a client of its own making gets for `image` in a search."""
    asked = httpx.post(f"{app.url}gradio_api/call/search", json={"data": ["a man", image, "", 1, None, 0.5, 0.4]})
    return httpx.get(f"{app.url}gradio_api/call/search/{asked.json()['event_id']}").text


META = {"_type": "gradio.FileData"}


@pytest.mark.parametrize(
    "value",
    [
        {"path": "/etc/passwd"},
        {"path": "/etc/passwd", "meta": META},
        {"path": "app.py", "meta": META},
        {"path": {}, "meta": META},
    ],
)
def test_no_file_of_the_server_is_read(running_app: RunningApp, value: Any) -> None:
    answer = raw(running_app, value)
    assert answer.startswith("event: error")
    assert "root:" not in answer
    if value["path"] in ("/etc/passwd", "app.py"):
        assert "uploaded" in answer


def test_a_path_that_no_file_system_takes_is_refused_at_once(running_app: RunningApp) -> None:
    data = ["a man", {"path": "\0", "meta": {}}, "", 1, None, 0.5, 0.4]
    asked = httpx.post(f"{running_app.url}gradio_api/call/search", json={"data": data})
    assert asked.status_code == 400
    assert "path" in asked.text


def test_the_data_folder_is_not_read_by_way_of_the_uploads(running_app: RunningApp) -> None:
    for path in ("app.db", "secret", "tmp/../secret"):
        answer = raw(running_app, {"path": str(running_app.data_dir / path), "meta": META})
        assert "not uploaded here" in answer


def test_nothing_is_fetched_for_a_client(running_app: RunningApp) -> None:
    for address in (running_app.url, "https://example.org/a.jpg"):
        assert "not fetched from addresses" in raw(running_app, {"path": address, "meta": META})


def test_no_reply_names_a_folder_of_the_server(client: Client, running_app: RunningApp) -> None:
    (uploaded,) = httpx.post(f"{running_app.url}gradio_api/upload", files={"files": ("a.txt", b"hello")}).json()
    assert uploaded.startswith("tmp/")
    assert httpx.get(f"{running_app.url}gradio_api/file={uploaded}").text == "hello"
    image_id = call(client, "search", CAPTION, k=1)["candidates"][0]["image_id"]
    asked = httpx.post(f"{running_app.url}gradio_api/call/image", json={"data": [image_id]}).json()["event_id"]
    answer = httpx.get(f"{running_app.url}gradio_api/call/image/{asked}").text
    assert f'"path": "tmp/pictures/{image_id}' in answer
    config = httpx.get(f"{running_app.url}config").text
    assert not [said for said in (answer, config) if str(running_app.data_dir.parent) in said]


def test_files_of_the_server_are_not_served(running_app: RunningApp) -> None:
    for path in (
        "/etc/passwd",
        running_app.data_dir / "app.db",
        running_app.data_dir / "secret",
        "app.py",
        "app.db",
        "tmp/%2e%2e/secret",
    ):
        assert httpx.get(f"{running_app.url}gradio_api/file={path}").status_code in (403, 404)


def test_pictures_are_served_by_id(client: Client, running_app: RunningApp) -> None:
    image_id = call(client, "search", CAPTION, k=1)["candidates"][0]["image_id"]
    address = f"{running_app.url}picture/{image_id}"
    for size in ("thumb", "full"):
        answer = httpx.get(address, params={"size": size})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "private" in answer.headers["cache-control"]
        with Image.open(io.BytesIO(answer.content)) as picture:
            assert picture.size == (128, 384)
        again = httpx.get(address, params={"size": size}, headers={"if-none-match": answer.headers["etag"]})
        assert again.status_code == 304
    for bad in ("x", "..%2f..%2fapp.db", "0" * 64, f"{image_id}?size=huge"):
        answer = httpx.get(f"{running_app.url}picture/{bad}")
        assert answer.status_code == 404
        assert str(running_app.data_dir) not in answer.text


def test_a_browser_gets_a_signed_cookie(running_app: RunningApp) -> None:
    answer = httpx.get(running_app.url, headers={"accept": "text/html"})
    assert "upperson_user" in answer.cookies


def test_versions_name_the_one_that_serves(client: Client) -> None:
    (version,) = (one for one in call(client, "versions") if one["serving"])
    assert (version["id"], version["status"]) == ("mini-v0", "active")
    assert call(client, "promote", "mini-v0")["status"] == "active"


def test_a_picture_is_forgotten(running_app: RunningApp) -> None:
    client = Client(running_app.url, verbose=False)
    gone = call(client, "search", CAPTION, k=40)["candidates"][-1]["image_id"]
    done = call(client, "forget", gone)
    assert (done["pictures"], done["marks"]) == (1, 0)
    assert gone not in {c["image_id"] for c in call(client, "search", CAPTION, k=200)["candidates"]}
    assert "no picture" in refused(client, "image", gone)
    assert "64" in refused(client, "forget", "../x") or "pattern" in refused(client, "forget", "../x")


def test_the_client_of_the_readme_runs(running_app: RunningApp, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = [part for part in (ROOT / "README.md").read_text().split("```python\n")[1:] if "gradio_client" in part]
    code = code.partition("```")[0].replace("http://127.0.0.1:7860", running_app.url)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip().endswith(".parquet")
