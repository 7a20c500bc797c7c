"""What to mark next, on a real gallery: suggestions can be marked, and say what the version said."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest

from app.app_errors import RequestError
from app.pages import review_page
from app.search.views import SearchRequest
from app.services import Services
from store.records import GivenMark
from tests.conftest import SAMPLE, add_version

CAPTION = "a man in a black jacket"


def mark(services: Services, user: str, caption: str, *verdicts: str) -> list[str]:
    """Judge the first results of a search; their ids."""
    result = services.search(SearchRequest(caption, k=SAMPLE), user)
    for candidate, verdict in zip(result.candidates, verdicts, strict=False):
        services.mark(user, result.query_id, candidate.image_id, verdict)  # type: ignore[arg-type]
    return [candidate.image_id for candidate in result.candidates]


def test_suggestions_are_unmarked_results_that_can_be_marked(services: Services) -> None:
    ids = mark(services, "me", CAPTION, "hit", "miss", "wrong_person")
    review = services.review("me", 3)
    assert [one.reason for one in review.suggestions] == ["uncertain"] * 3
    assert not {one.image_id for one in review.suggestions} & set(ids[:3])
    truth = {c.image_id: (c.rank, c.score) for c in services.search(SearchRequest(CAPTION, k=SAMPLE), "x").candidates}
    for one in review.suggestions:
        assert (one.rank, pytest.approx(one.score)) == truth[one.image_id]
        assert one.version == "mini-v0"
        services.mark("me", one.query_id, one.image_id, "miss")
    kept = {m.image_id: m for m in services.state.marks.current(user="me")}
    assert all((kept[o.image_id].rank, kept[o.image_id].score) == (o.rank, o.score) for o in review.suggestions)
    assert not {o.image_id for o in services.review("me", 50).suggestions} & set(kept)


def test_people_who_contradict_each_other_are_listed(services: Services) -> None:
    ids = mark(services, "ada", CAPTION, "hit", "hit")
    mark(services, "bob", CAPTION.upper() + "!", "miss", "hit")
    for user, verdict in (("ada", "hit"), ("bob", "miss")):
        (one,) = services.review(user).contested
        assert (one.image_id, one.hits, one.misses, one.verdict) == (ids[0], 1, 1, verdict)
        services.mark(user, one.query_id, one.image_id, verdict)  # type: ignore[arg-type]
    third = services.review("cy")
    assert third.contested[0].query_id is None
    assert (third.suggestions[0].reason, third.suggestions[0].image_id) == ("conflict", ids[0])
    services.mark("cy", third.suggestions[0].query_id, ids[0], "hit")
    assert [(one.hits, one.misses) for one in services.review("cy").contested] == [(2, 1)]


def test_what_another_backbone_showed_is_recorded_as_its_own(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = services.search(SearchRequest(CAPTION, k=SAMPLE), "x").candidates[-1].image_id
    for user, verdict in (("a", "hit"), ("b", "miss")):
        given = GivenMark(
            user=user, caption=CAPTION, image_id=last, verdict=verdict, query_id=user * 32, rank=150, score=0.5,
            version="ViT-B-16-v0", backbone="ViT-B-16", marked_at=datetime(2026, 1, 1, tzinfo=UTC),
        )  # type: ignore[arg-type]  # fmt: skip
        assert services.state.marks.import_given([given]) == ["taken"]
    monkeypatch.setattr("app.search.reviewing.DEPTH", 1)  # so that it is deeper than looked
    (one,) = [one for one in services.review("c").suggestions if one.version == "ViT-B-16-v0"]
    assert (one.image_id, one.rank) == (last, 150)
    assert services.state.marks.search(one.query_id).backbone == "ViT-B-16"


def test_the_version_before_may_disagree(services: Services) -> None:
    mark(services, "me", CAPTION, "hit")
    version = add_version(services)
    services.promote(version, "me")
    found = [one for one in services.review("me", 30).suggestions if one.reason == "disagreement"]
    assert found
    assert all(one.version == version and f"by {version}" in one.why and "by mini-v0" in one.why for one in found)


def test_without_marks_there_is_nothing_to_ask(services: Services) -> None:
    review = services.review("me")
    assert (review.suggestions, review.contested) == ((), ())
    with pytest.raises(RequestError, match="k must be"):
        services.review("me", 0)


def test_others_words_are_shown_to_administrators_only(services: Services) -> None:
    mark(services, "ada", CAPTION, "hit", "miss")
    mark(services, "bob", "a woman in red", "hit")
    mark(services, "bob", CAPTION, "miss")
    object.__setattr__(services.settings, "admins", ["root"])
    assert {one.caption for one in services.review("root").suggestions} == {CAPTION, "a woman in red"}
    assert {one.caption for one in services.review("ada").suggestions} == {CAPTION}
    assert len(services.review("ada").contested) == 1
    assert services.review("cy").suggestions == services.review("cy").contested == ()


def test_marks_on_pictures_that_are_not_there_are_left_out(services: Services) -> None:
    ids = mark(services, "me", CAPTION, "hit", "miss")
    gone = "f" * 64
    for user, verdict in (("a", "hit"), ("b", "miss")):
        given = GivenMark(
            user=user, caption=CAPTION, image_id=gone, verdict=verdict, query_id=user * 32, rank=1, score=0.5,
            version="mini-v0", backbone="mini", marked_at=datetime(2026, 1, 1, tzinfo=UTC),
        )  # type: ignore[arg-type]  # fmt: skip
        assert services.state.marks.import_given([given]) == ["taken"]
    review = services.review("me", 5)
    assert review.contested == ()
    assert {one.image_id for one in review.suggestions} <= set(ids[2:])


def test_descriptions_take_turns_and_reasons_are_plain(services: Services) -> None:
    hits = {}
    for caption in (CAPTION, "a woman in a red coat"):
        hits[caption] = mark(services, "me", caption, "hit", "miss")[0]
    batch = review_page._batch(services, "me")["suggestions"]
    assert all(one["known"] == [hits[one["caption"]]] for one in batch), "the hits already known stand beside it"
    asked = review_page.alternating(services.review("me", 12).suggestions)
    turns = [one.caption for one in asked]
    assert len(set(turns)) == 2
    assert all(one != other for one, other in itertools.pairwise(turns[:4]))
    assert all("%" not in one.why and "in 10" not in one.why for one in asked), "four marks are too few to estimate by"
    for caption in ("a man in a blue shirt", "a child"):
        mark(services, "me", caption, *["hit", *["miss"] * 19])
    found = services.review("me", 12).suggestions
    assert any("Of 44 marked results, about" in one.why for one in found)
