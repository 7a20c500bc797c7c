"""Two versions side by side, on a real gallery: the same pictures, true ranks, limits that are said."""

from __future__ import annotations

import numpy as np
import pytest

from app.app_errors import RequestError
from app.search import comparing, side, turns
from app.search.views import SearchRequest
from app.services import Services
from store.store_errors import VersionError
from tests.conftest import SAMPLE, add_version

CAPTION = "a man in a black jacket"


def test_a_version_that_never_served_is_compared_exactly(services: Services) -> None:
    version = add_version(services)
    found = services.comparing.compare("mini-v0", version, CAPTION, "me", k=10)
    assert (found.compared, found.total, found.note) == (SAMPLE, SAMPLE, "")
    assert version not in services.state.gallery.versions(), "it was not promoted, so it gets no table"
    truth = {}
    for name in ("mini-v0", version):
        services.promote(name, "me")
        truth[name] = services.search(SearchRequest(CAPTION, k=SAMPLE), "me").candidates
    for side_of, name, other in ((found.a, "mini-v0", version), (found.b, version, "mini-v0")):
        assert [one.image_id for one in side_of] == [one.image_id for one in truth[name][:10]]
        assert [one.score for one in side_of] == pytest.approx([one.score for one in truth[name][:10]], abs=1e-5)
        ranks = {one.image_id: one.rank for one in truth[other]}
        assert [one.other_rank for one in side_of] == [ranks[one.image_id] for one in side_of]


def test_changes_say_what_became_of_each_picture(services: Services) -> None:
    found = services.comparing.compare("mini-v0", add_version(services), CAPTION, "me", k=10)
    for one in found.a:
        assert one.other_rank is not None
        after = one.other_rank
        expected = "gone" if after > 10 else "up" if after < one.rank else "down" if after > one.rank else "same"
        assert one.change == expected
    in_a = {one.image_id for one in found.a}
    assert {one.image_id for one in found.b if one.change == "new"} == {one.image_id for one in found.b} - in_a
    assert {"new", "gone"} <= {one.change for one in (*found.a, *found.b)}


def test_hits_of_marked_descriptions_rise_and_fall(services: Services) -> None:
    version = add_version(services)
    for user, caption in (("me", CAPTION), ("you", "a woman in a red coat")):
        result = services.search(SearchRequest(caption, k=SAMPLE), user)
        for place in (0, 5, 30):
            services.mark(user, result.query_id, result.candidates[place].image_id, "hit")
        services.mark(user, result.query_id, result.candidates[7].image_id, "miss")
    mine = services.comparing.moved_hits("mini-v0", version, "me", everybody=False)
    assert (mine.captions, mine.hits, mine.first_a) == (1, 3, 1)
    every = services.comparing.moved_hits("mini-v0", version, "me", everybody=True)
    assert (every.captions, every.hits, every.first_a) == (2, 6, 2)
    assert every.rose + every.fell <= 6
    assert sorted(move.rank_a for move in (*mine.up, *mine.down)) in ([1, 6, 31], [6, 31], [1, 31], [1, 6])
    for move in every.up:
        assert move.rank_b < move.rank_a
        shown = services.comparing.compare("mini-v0", version, move.caption, "me", k=SAMPLE)
        assert next(one.rank for one in shown.b if one.image_id == move.image_id) == move.rank_b
    gains = [move.rank_a - move.rank_b for move in every.up]
    assert gains == sorted(gains, reverse=True)
    swapped = services.comparing.moved_hits(version, "mini-v0", "me", everybody=True)
    assert (swapped.rose, swapped.fell) == (every.fell, every.rose)


def test_vectors_are_computed_for_a_limited_time(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "SECONDS", 0.0)
    version = add_version(services)
    first = services.comparing.compare("mini-v0", version, CAPTION, "me")
    assert first.compared == 32 < first.total == SAMPLE
    assert f"{version} has no vectors yet" in first.note
    assert "32 of 40 pictures are compared so far" in first.note
    again = services.comparing.compare("mini-v0", version, CAPTION, "me")
    assert (again.compared, again.note) == (SAMPLE, "")


def test_a_large_gallery_is_compared_by_what_versions_find(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "WHOLE", 10)
    monkeypatch.setattr(comparing, "DEPTH", 12)
    monkeypatch.setattr(side, "DEPTH", 12)
    version = add_version(services)
    found = services.comparing.compare("mini-v0", version, CAPTION, "me", k=12)
    assert found.compared == 12
    assert "the first 12 by mini-v0 are compared" in found.note
    first = [one.image_id for one in services.search(SearchRequest(CAPTION, k=12), "me").candidates]
    assert [one.image_id for one in found.a] == first
    assert {one.image_id for one in found.b} == set(first)
    other = add_version(services)
    with pytest.raises(RequestError, match="neither version has vectors"):
        services.comparing.compare(version, other, CAPTION, "me")
    assert services.comparing.moved_hits(version, other, "me", everybody=True).hits == 0, "nothing is marked yet"


def test_who_waits_long_for_a_turn_is_refused(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WAIT", 0.01)
    found = services.search(SearchRequest(CAPTION), "me")
    with services.comparing._turn, pytest.raises(RequestError, match="others are comparing at this moment"):
        services.comparing.compare("mini-v0", "mini-v1", CAPTION, "me")
    image_id = found.candidates[0].image_id
    with services.explaining._turn, pytest.raises(RequestError, match="others are having results explained"):
        services.explaining.explain(found.query_id, image_id, "me")
    assert services.explaining.explain(found.query_id, image_id, "me").words


def test_forgotten_pictures_leave_no_vector_behind(services: Services) -> None:
    version = add_version(services)
    before = services.comparing.compare("mini-v0", version, CAPTION, "me", k=SAMPLE)
    gone = before.b[0].image_id
    services.forget([gone], "me")
    after = services.comparing.compare("mini-v0", version, CAPTION, "me", k=SAMPLE)
    assert gone not in {one.image_id for one in (*after.a, *after.b)}
    assert all(gone not in kept.rows for kept in services.comparing._sides.values())
    assert after.compared == SAMPLE - 1


def test_what_cannot_be_compared_is_refused_in_words(services: Services) -> None:
    compare = services.comparing.compare
    with pytest.raises(RequestError, match="both versions are mini-v0"):
        compare("mini-v0", "mini-v0", CAPTION, "me")
    with pytest.raises(VersionError, match="no version 'mini-v9'"):
        compare("mini-v0", "mini-v9", CAPTION, "me")
    with pytest.raises(RequestError, match="the description is empty"):
        compare("mini-v0", "mini-v9", " ", "me")
    empty = services.comparing.moved_hits("mini-v0", add_version(services), "me", everybody=True)
    assert (empty.captions, empty.hits, empty.up) == (0, 0, ())
    assert np.isfinite([empty.first_a, empty.first_b]).all()
