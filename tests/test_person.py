"""All pictures of a person, by pid and by joined hits, on a real gallery."""

from __future__ import annotations

import pytest

from app.app_errors import RequestError
from app.search import person
from app.search.person import person_by_hits, person_by_pid
from app.search.views import SearchRequest
from app.services import Services
from store import Filters

CAPTION = "a man in a black jacket"


def test_pictures_of_a_pid_by_camera(services: Services) -> None:
    gallery = services.state.gallery
    pid = str(gallery.rows(gallery.ids()[:1])[0].pid)
    found = person_by_pid(services.state, pid)
    rows = [row for _, some in found.cameras for row in some]
    assert {row.id for row in rows} == set(gallery.matching(Filters(pid=(pid,))))
    assert found.count == len(rows) == 4
    assert [camera for camera, _ in found.cameras] == sorted({str(row.camera) for row in rows})
    assert person_by_pid(services.state, "nobody").count == 0
    gallery.hide_source("sample")
    assert person_by_pid(services.state, pid).count == 0, "hidden sources are not shown"
    with pytest.raises(RequestError, match="a pid of 1 to 200 characters"):
        person_by_pid(services.state, "x" * 201)


def test_hits_join_descriptions_and_pids_add_the_rest(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    first = services.search(SearchRequest(CAPTION, k=40), "me")
    hit = first.candidates[0]
    services.mark("me", first.query_id, hit.image_id, "hit")
    services.mark("me", first.query_id, first.candidates[1].image_id, "miss")
    other = services.search(SearchRequest("somebody dark", k=40), "you")
    services.mark("you", other.query_id, hit.image_id, "hit")
    mine = person_by_hits(services.state, CAPTION.upper(), "me")
    assert mine.captions == (CAPTION,)
    assert {row.pid for _, some in mine.cameras for row in some} == {hit.pid}
    assert mine.count == 4
    every = person_by_hits(services.state, CAPTION, None)
    assert set(every.captions) == {CAPTION, "somebody dark"}
    monkeypatch.setattr(person, "_NEWEST", 1)
    assert person_by_hits(services.state, CAPTION, None) == every, "its own marks always count"
    newer = services.search(SearchRequest("anybody"), "you")
    services.mark("you", newer.query_id, newer.candidates[0].image_id, "miss")
    assert person_by_hits(services.state, CAPTION, None).captions == (CAPTION,), "older marks do not count"
    assert person_by_hits(services.state, CAPTION, "you").count == 0
    with pytest.raises(RequestError, match="neither came"):
        person_by_hits(services.state, " ", None)
