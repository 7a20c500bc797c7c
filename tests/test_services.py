from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from app.app_errors import NotAllowedError, RequestError, StartError, TrainingError, without_paths
from app.search.views import SearchRequest
from app.services import Services
from app.settings import Settings
from core.core_errors import BackboneError
from store import Filters
from store.store_errors import ExportError, GalleryError, MarkError
from tests.conftest import SAMPLE

CAPTION = "a man in a black jacket"


def test_a_search_is_ranked_and_remembered(services: Services) -> None:
    result = services.search(SearchRequest(CAPTION, k=10), "me")
    assert [c.rank for c in result.candidates] == list(range(1, 11))
    assert (result.version, result.total, result.caption) == ("mini-v0", SAMPLE, CAPTION)
    search = services.state.marks.search(result.query_id)
    assert (search.user, search.caption, search.version, search.backbone) == ("me", CAPTION, "mini-v0", "mini")
    shown = services.state.marks.shown(result.query_id)
    assert [(s.image_id, s.rank) for s in shown] == [(c.image_id, c.rank) for c in result.candidates]


def test_browsing_pages_through_what_passes_without_a_query(services: Services) -> None:
    total, first = services.browse(None, k=24)
    _, rest = services.browse(None, offset=24, k=24)
    assert total == SAMPLE
    assert len({row.id for row in first + rest}) == SAMPLE
    few, rows = services.browse(Filters(camera=("camera 1",)))
    assert few == len(rows) == services.facets().cameras["camera 1"]
    assert {row.camera for row in rows} == {"camera 1"}
    services.state.gallery.hide_source("sample")
    assert services.browse(None) == (0, [])
    with pytest.raises(RequestError, match="offset must be a whole number"):
        services.browse(None, offset=-1)


def test_marks_come_back_with_the_same_words(services: Services) -> None:
    first = services.search(SearchRequest(CAPTION), "me")
    hit, miss, *rest = (c.image_id for c in first.candidates)
    services.mark("me", first.query_id, hit, "hit")
    services.mark("me", first.query_id, miss, "wrong_person")
    assert services.mark_rest("me", first.query_id, rest) == 22
    verdicts = {c.image_id: c.verdict for c in services.search(SearchRequest(CAPTION + " "), "me").candidates}
    assert (verdicts[hit], verdicts[miss], verdicts[rest[0]]) == ("hit", "wrong_person", "miss")
    assert services.stats("me") == {
        "total": 24, "hits": 1, "misses": 22, "wrong_person": 1, "captions": 1, "images": 24, "users": 1,
    }  # fmt: skip
    assert services.stats("you")["total"] == 0
    assert len(services.undo("me")) == 22
    assert [m.image_id for m in services.my_marks("me")] == [miss, hit]
    services.mark("me", first.query_id, hit, None)
    assert [m.image_id for m in services.my_marks("me")] == [miss]


def test_others_searches_cannot_be_marked_or_continued(services: Services) -> None:
    result = services.search(SearchRequest(CAPTION), "me")
    with pytest.raises(MarkError, match="another user"):
        services.mark("you", result.query_id, result.candidates[0].image_id, "hit")
    with pytest.raises(NotAllowedError, match="another user"):
        services.more(result.query_id, "you")


def test_more_ends_with_the_gallery(services: Services) -> None:
    result = services.search(SearchRequest(CAPTION), "me")
    assert len(services.more(result.query_id, "me", 24)) == SAMPLE - 24
    assert services.more(result.query_id, "me", 24) == ()


def test_a_picture_finds_itself(services: Services) -> None:
    image_id = services.state.gallery.ids()[7]
    with Image.open(io.BytesIO(services.state.gallery.data(image_id))) as image:
        result = services.search(SearchRequest(image=image.convert("RGB")), "me")
    assert result.candidates[0].image_id == image_id
    assert result.candidates[0].score == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"text": ""}, "describe a person"),
        ({"text": " \n\t"}, "describe a person"),
        ({"text": "x" * 10_000}, r"10,000 characters; at most 1,000"),
        ({"text": "a man", "negative": "y" * 1_001}, "1,001 characters"),
        ({"text": "a \ud800"}, "broken characters"),
        ({"text": 5}, "must be text"),
        ({"text": "a man", "k": 0}, "1 to 200"),
        ({"text": "a man", "k": 201}, "1 to 200"),
        ({"text": "a man", "k": True}, "1 to 200"),
        ({"text": "a man", "k": 2.0}, "1 to 200"),
        ({"text": "a man", "offset": -1}, "offset"),
        ({"like": "../app.db"}, "image_id"),
        ({"like": "0" * 64, "image": Image.new("RGB", (8, 8))}, "one picture"),
        ({"text": "a man", "image_weight": 1.01}, "words only"),
        ({"text": "a man", "image_weight": float("nan")}, "words only"),
        ({"text": "a man", "image_weight": "1"}, "words only"),
        ({"text": "a man", "negative_weight": -0.1}, "negative_weight must be a number from 0"),
    ],
)
def test_bad_requests_are_refused_with_a_sentence(given: dict[str, object], said: str) -> None:
    with pytest.raises((RequestError, MarkError), match=said):
        SearchRequest(**given)  # type: ignore[arg-type]


def test_unknown_words_are_named_and_do_not_stop_the_search(services: Services) -> None:
    some = services.search(SearchRequest("a man with a flumph"), "me")
    assert some.unknown_words == ("flumph",)
    assert "flumph" in some.warning
    none = services.search(SearchRequest("zxcvb qwrtp"), "me")
    assert none.unknown_words == ("zxcvb", "qwrtp")
    assert "knows no word" in none.warning
    assert len(none.candidates) == 24
    assert services.search(SearchRequest("a man"), "me").warning == ""
    assert (some.understood, none.understood) == (True, False)
    without = services.search(SearchRequest("a man", negative="zxcvb"), "me")
    assert "what should not be there" in without.warning
    picture = services.search(SearchRequest("zxcvb", like=none.candidates[0].image_id), "me")
    assert (picture.understood, picture.warning) == (True, "`mini` does not know: zxcvb. The picture decides.")


def test_what_is_too_long_to_be_read_is_reported(services: Services) -> None:
    fits = " ".join(["a man in a red coat"] * 12)
    assert services.search(SearchRequest(fits), "me").warning == ""
    found = services.search(SearchRequest(f"{fits} and a woman with a green bag"), "me")
    assert found.warning == "Only the first 75 words count: the description is longer than `mini` reads."


@pytest.mark.parametrize(
    ("query_id", "image_id", "verdict", "said"),
    [
        ("nonsense", "0" * 64, "hit", "query_id"),
        ("0" * 32, "../app.db", "hit", "image_id"),
        ("0" * 32, "0" * 64, "hit", "no search"),
        ("0" * 32, "0" * 64, "good", "verdict is one of"),
        (None, "0" * 64, "hit", "query_id"),
    ],
)
def test_bad_marks_are_refused(services: Services, query_id: str, image_id: str, verdict: str, said: str) -> None:
    with pytest.raises((RequestError, MarkError), match=said):
        services.mark("me", query_id, image_id, verdict)  # type: ignore[arg-type]


def test_no_thumbnail_of_a_picture_that_was_forgotten_while_it_was_read(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = services.state.gallery
    image_id, other = gallery.ids()[:2]
    read = gallery.data

    def late(image_id: str) -> bytes:
        data = read(image_id)
        services.forget([image_id], "me")
        monkeypatch.setattr(gallery, "data", read)
        services.picture(other, size="thumb")  # notices, and drops what is kept
        return data

    monkeypatch.setattr(gallery, "data", late)
    services.picture(image_id, size="thumb")
    with pytest.raises(GalleryError, match="no picture"):
        services.picture(image_id, size="thumb")


def test_a_start_deletes_what_a_killed_backup_had_fetched(services: Services) -> None:
    services.close()
    left = services.settings.fetched_dir / "x.jsonl"
    left.parent.mkdir()
    left.touch()
    Services.open(services.settings).close()
    assert not left.parent.exists()


def test_pictures_are_served_by_id_only(services: Services) -> None:
    image_id = services.state.gallery.ids()[0]
    full, mime = services.picture(image_id)
    assert (full, mime) == (services.state.gallery.data(image_id), "image/jpeg")
    small, mime = services.picture(image_id, size="thumb")
    with Image.open(io.BytesIO(small)) as thumbnail:
        assert (mime, thumbnail.format) == ("image/jpeg", "JPEG")
        assert thumbnail.width <= 256
        assert thumbnail.height <= 384
    assert services.picture(image_id, size="thumb")[0] == small
    for bad in ("", "../app.db", "A" * 64, image_id + "\n"):
        with pytest.raises(MarkError, match="image_id"):
            services.picture(bad)
    with pytest.raises(GalleryError, match="no picture"):
        services.picture("0" * 64)


def test_training_wants_a_hit(services: Services) -> None:
    with pytest.raises(TrainingError, match="no hit"):
        services.train("me")
    assert services.jobs() == []


def test_an_export_needs_marks_and_a_known_format(services: Services, settings: Settings) -> None:
    with pytest.raises(ExportError):
        services.export("parquet", "me")
    with pytest.raises(ExportError, match="parquet, cuhk-pedes, imagefolder, jsonl"):
        services.export("csv", "me")
    result = services.search(SearchRequest(CAPTION), "me")
    services.mark("me", result.query_id, result.candidates[0].image_id, "hit")
    for form, suffix in (("parquet", ".parquet"), ("imagefolder", ".zip"), ("jsonl", ".jsonl")):
        file = services.export(form, "me")
        assert file.suffix == suffix
        assert file.is_relative_to(settings.tmp_dir)
        assert file.stat().st_size > 0


def test_administrators_when_named_are_the_only_ones(data_dir: Path) -> None:
    services = Services.open(Settings(data_dir=data_dir, sample_size=4, adapt="off", admins=("ada",)))
    try:
        for act in (services.train, services.cancel, services.rollback):
            with pytest.raises(NotAllowedError, match="administrator"):
                act("cookie:somebody")
        with pytest.raises(NotAllowedError, match="administrator"):
            services.promote("mini-v0", "cookie:somebody")
        with pytest.raises(NotAllowedError, match="administrator"):
            services.export("jsonl", "cookie:somebody")
        with pytest.raises(NotAllowedError, match="administrator"):
            services.forget(services.state.gallery.ids()[:1], "cookie:somebody")
        with pytest.raises(NotAllowedError, match="administrator"):
            services.add_pictures(data_dir, "cookie:somebody")
        assert services.promote("mini-v0", "ada").status == "active"
        assert not services.learning_view("cookie:somebody").may_train
    finally:
        services.close()


def test_the_learning_view_says_how_much_is_missing(services: Services) -> None:
    result = services.search(SearchRequest(CAPTION), "me")
    for candidate in result.candidates[:3]:
        services.mark("me", result.query_id, candidate.image_id, "hit")
    view = services.learning_view("me")
    assert (view.new_marks, view.hits, view.marks_needed, view.serving, view.problem) == (3, 3, 197, "mini-v0", "")
    assert view.policy == "Fine-tuning starts by itself after 197 more marks and 7 more hits."
    assert [(v.id, v.status, v.serving) for v in view.versions] == [("mini-v0", "active", True)]
    assert json.dumps(view.versions[0].metrics)


def test_one_folder_serves_one_app(services: Services, settings: Settings) -> None:
    with pytest.raises(StartError, match=r"in use by another app \(process \d+\).*--data-dir"):
        Services.open(settings)
    assert services.search(SearchRequest(CAPTION), "me").candidates
    services.close()
    Services.open(settings).close()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"cannot be written.*--data-dir"):
        Services.open(Settings(data_dir=tmp_path / "file" / "data"))


def test_an_unknown_backbone_lists_the_known_and_leaves_nothing_locked(settings: Settings) -> None:
    with pytest.raises(BackboneError, match="mini, ViT-B-16"):
        Services.open(settings.model_copy(update={"backbone": "ViT-Z"}))
    Services.open(settings).close()


def test_paths_are_cut_down_to_their_last_part() -> None:
    assert without_paths("/srv/data/models/v1/petl.safetensors is damaged") == "petl.safetensors is damaged"
    assert without_paths('File "/usr/lib/x.py", line 3') == 'File "x.py", line 3'
    assert without_paths("hits and/or misses, K/V, /search") == "hits and/or misses, K/V, /search"


def test_an_uploaded_picture_is_found_at_once(services: Services, tmp_path: Path) -> None:
    upload = tmp_path / "ada.png"
    Image.new("RGB", (48, 128), "red").save(upload)
    report = services.add_pictures(upload, "me")
    assert (report.source, report.added, report.embedded) == ("uploads", 1, 1)
    assert services.search(SearchRequest("a man in red"), "me").total == 1
