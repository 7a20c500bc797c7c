"""Searching: pictures as queries, filters, near duplicates."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from app.app_errors import NotAllowedError
from app.search.views import SearchRequest
from app.services import Services
from store import Filters, NewImage
from store.store_errors import GalleryError, MarkError
from tests.conftest import SAMPLE

CAPTION = "a man in a black jacket"


def test_more_like_this_needs_no_upload_and_takes_words_along(services: Services) -> None:
    image_id, other = services.state.gallery.ids()[7:9]
    same = services.search(SearchRequest(like=image_id, k=SAMPLE), "me")
    assert (same.candidates[0].image_id, same.understood, same.warning) == (image_id, True, "")
    assert same.candidates[0].score == pytest.approx(1, abs=1e-5)
    search = services.state.marks.search(same.query_id)
    assert (search.image_query, search.caption) == (True, "")
    services.mark("me", same.query_id, other, "miss")
    assert services.my_marks("me")[0].caption == ""

    def scores(weight: float) -> dict[str, float]:
        request = SearchRequest(CAPTION, like=image_id, image_weight=weight, k=SAMPLE)
        return {c.image_id: c.score for c in services.search(request, "me").candidates}

    words = {c.image_id: c.score for c in services.search(SearchRequest(CAPTION, k=SAMPLE), "me").candidates}
    assert scores(0.0) == pytest.approx(words, abs=1e-5)
    assert scores(1.0) == pytest.approx({c.image_id: c.score for c in same.candidates}, abs=1e-5)
    assert words[image_id] < scores(0.5)[image_id] < 1
    with pytest.raises(GalleryError, match="no picture"):
        services.search(SearchRequest(like="0" * 64), "me")


def test_filters_count_what_passes_and_leave_out_what_is_hidden(services: Services) -> None:
    gallery = services.state.gallery
    here = Filters(camera=("camera 1", "camera 2"))
    passing = {row.id for row in gallery.rows(gallery.ids()) if row.camera in here.camera}
    assert 0 < len(passing) < SAMPLE
    found = services.search(SearchRequest(CAPTION, k=SAMPLE, filters=here), "me")
    assert ({c.image_id for c in found.candidates}, found.total) == (passing, len(passing))
    add(services, Image.new("RGB", (40, 120), "red"), "own", camera="camera 1")
    gallery.hide_source("sample")
    found = services.search(SearchRequest(CAPTION, filters=here), "me")
    assert (len(found.candidates), found.total) == (1, 1)
    gone = services.search(SearchRequest(CAPTION, filters=Filters(source=("sample",))), "me")
    assert (gone.candidates, gone.total, gone.warning) == ((), 0, "No picture passes these filters: remove one.")


def add(services: Services, picture: Image.Image, source: str, **facts: str) -> str:
    """Put a picture into the gallery and embed it; its id."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=60)
    image = NewImage(
        data=file.getvalue(), uri="deep/own.jpg", width=picture.width, height=picture.height, source=source, **facts
    )
    services.state.gallery.add([image])
    services.retriever.embed_new()
    return image.id


def test_copies_of_a_picture_stand_behind_the_best_ranked(services: Services) -> None:
    first = services.search(SearchRequest(CAPTION, k=SAMPLE), "me")
    assert services.duplicates(first.query_id, "me") == {}
    best = first.candidates[0].image_id
    with Image.open(io.BytesIO(services.state.gallery.data(best))) as image:
        picture = image.convert("RGB")
    copies = {add(services, picture, "copies"), add(services, picture.resize((64, 192)), "copies")}
    found = services.search(SearchRequest(CAPTION, k=5), "me")
    family = [c for c in found.candidates if c.image_id in copies | {best}]
    assert len(family) == 3
    leader, *rest = (c.image_id for c in family)
    assert services.duplicates(found.query_id, "me") == dict.fromkeys(rest, leader)
    services.more(found.query_id, "me", SAMPLE)
    assert services.duplicates(found.query_id, "me") == dict.fromkeys(rest, leader)
    with pytest.raises(NotAllowedError, match="another user"):
        services.duplicates(found.query_id, "you")
    assert services.about(copies.pop()).uri == "deep/own.jpg"
    with pytest.raises(MarkError, match="image_id"):
        services.about("../app.db")


def test_more_is_asked_for_several_times_at_once(services: Services) -> None:
    found = services.search(SearchRequest(CAPTION, k=4), "me")
    with ThreadPoolExecutor(6) as pool:
        parts = list(pool.map(lambda _: services.more(found.query_id, "me", 4), range(6)))
    ranks = [candidate.rank for part in (found.candidates, *parts) for candidate in part]
    assert sorted(ranks) == list(range(1, 29))
    assert {shown.rank for shown in services.state.marks.shown(found.query_id)} == set(ranks)
