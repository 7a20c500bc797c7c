"""Re-ranking an open search, on a real gallery: what moves, what is kept, how it goes on."""

from __future__ import annotations

import pytest

from app.app_errors import NotAllowedError, RequestError
from app.search.views import SearchRequest
from app.services import Services
from app.web.limits import Limit
from tests.conftest import SAMPLE

CAPTION = "a man in a black jacket"


def ids(candidates: tuple) -> list[str]:
    return [candidate.image_id for candidate in candidates]


def test_marks_reorder_the_rest_of_their_search(services: Services) -> None:
    first = services.search(SearchRequest(CAPTION, k=10), "me")
    before = ids(first.candidates)
    services.mark("me", first.query_id, before[4], "hit")
    services.mark("me", first.query_id, before[0], "miss")
    services.mark("me", first.query_id, before[7], "wrong_person")
    after = services.rerank(first.query_id, "me", 10)
    assert [ids(after)[place] for place in (0, 4, 7)] == [before[0], before[4], before[7]]
    assert ids(after) != before
    assert [c.verdict for c in after if c.verdict] == ["miss", "hit", "wrong_person"]

    whole = services.search(SearchRequest(CAPTION, k=SAMPLE), "you").candidates
    truth = {c.image_id: (c.rank, c.score) for c in whole}
    assert all((c.rank, c.score) == truth[c.image_id] for c in after), "rank and score are the version's"
    shown = {s.image_id: (s.rank, s.score) for s in services.state.marks.shown(first.query_id)}
    assert shown == {image_id: truth[image_id] for image_id in {*before, *ids(after)}}
    assert services.state.versions.list("mini")[0].id == first.version, "no version was made"


def test_a_result_marked_where_it_has_moved_to_stays_there(services: Services) -> None:
    first = services.search(SearchRequest(CAPTION, k=10), "me")
    services.mark("me", first.query_id, ids(first.candidates)[4], "hit")
    services.mark("me", first.query_id, ids(first.candidates)[0], "miss")
    after = ids(services.rerank(first.query_id, "me", 10))
    risen = next(place for place, image_id in enumerate(after) if image_id != ids(first.candidates)[place])
    services.mark("me", first.query_id, after[risen], "hit")
    assert ids(services.rerank(first.query_id, "me", 10))[risen] == after[risen]


def test_more_goes_on_in_the_new_order_and_nothing_comes_twice(services: Services) -> None:
    first = services.search(SearchRequest(CAPTION, k=5), "me")
    services.mark("me", first.query_id, ids(first.candidates)[1], "hit")
    services.mark("me", first.query_id, ids(first.candidates)[0], "miss")
    seen = ids(services.rerank(first.query_id, "me", 5))
    while more := services.more(first.query_id, "me", 7):
        seen += ids(more)
    assert sorted(seen) == sorted(services.state.gallery.ids())
    assert ids(services.rerank(first.query_id, "me", 5)) == seen, "all that was shown comes back"
    plain = services.rerank(first.query_id, "me", 5, aligned=False)
    assert [c.rank for c in plain] == list(range(1, SAMPLE + 1))


def test_what_was_shown_below_the_depth_stays_below(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.search.reranking.DEPTH", 10)
    monkeypatch.setattr("app.search.searching.DEPTH", 10)
    first = services.search(SearchRequest(CAPTION, k=15), "me")
    before = ids(first.candidates)
    services.mark("me", first.query_id, before[4], "hit")
    services.mark("me", first.query_id, before[0], "miss")
    after = ids(services.rerank(first.query_id, "me", 5))
    assert (set(after[:10]), after[10:]) == (set(before[:10]), before[10:])
    assert after[:10] != before[:10]
    after += ids(services.more(first.query_id, "me", 10))
    assert ids(services.rerank(first.query_id, "me", 5))[10:] == after[10:]
    assert sorted(after + ids(services.more(first.query_id, "me", 100))) == sorted(services.state.gallery.ids())


def test_without_marks_the_order_stays(services: Services) -> None:
    first = services.search(SearchRequest(CAPTION, k=10), "me")
    assert services.rerank(first.query_id, "me", 10) == first.candidates
    services.mark("me", first.query_id, ids(first.candidates)[0], "wrong_person")
    assert ids(services.rerank(first.query_id, "me", 10)) == ids(first.candidates)


def test_marks_taken_back_leave_the_order_of_the_search(services: Services) -> None:
    first = services.search(SearchRequest(CAPTION, k=10), "me")
    services.mark("me", first.query_id, ids(first.candidates)[4], "hit")
    assert ids(services.rerank(first.query_id, "me", 10)) != ids(first.candidates)
    services.undo("me")
    again = services.rerank(first.query_id, "me", 10)
    assert [c.rank for c in again[:10]] == list(range(1, 11))
    assert ids(again)[:10] == ids(first.candidates)


def test_a_forgotten_picture_does_not_come_back(services: Services) -> None:
    first = services.search(SearchRequest(CAPTION, k=5), "me")
    services.mark("me", first.query_id, ids(first.candidates)[0], "hit")
    services.rerank(first.query_id, "me", 5)
    gone = services.search(SearchRequest(CAPTION, k=SAMPLE), "you").candidates[20].image_id
    services.forget([gone], "you")
    assert gone not in ids(services.more(first.query_id, "me", 100))
    assert gone not in ids(services.rerank(first.query_id, "me", 100))


def test_only_ones_own_open_search(services: Services) -> None:
    first = services.search(SearchRequest(CAPTION), "me")
    with pytest.raises(NotAllowedError, match="another user"):
        services.rerank(first.query_id, "you")
    with pytest.raises(RequestError, match="search once more"):
        services.rerank("0" * 32, "me")
    with pytest.raises(RequestError, match="k must be"):
        services.rerank(first.query_id, "me", 0)


def test_a_reranking_counts_as_a_search(services: Services) -> None:
    services.searching.limit = Limit(2, "searches")
    first = services.search(SearchRequest(CAPTION), "me")
    services.rerank(first.query_id, "me")
    with pytest.raises(RequestError, match="at most 2 searches a minute"):
        services.rerank(first.query_id, "me")
