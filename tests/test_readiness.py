"""What the gate would find, known before anything is trained."""

from __future__ import annotations

from app.pages import learning_page
from app.readiness import Ready
from app.search.views import SearchRequest
from app.services import Services

CAPTIONS = ("a man in a black jacket", "a woman in a red coat", "a child with a backpack")


def mark(services: Services, caption: str, first: int, **more: str) -> None:
    """A hit on the picture ranked `first`, a miss on the next."""
    result = services.search(SearchRequest(caption, **more), "me")  # type: ignore[arg-type]
    for verdict, candidate in zip(("hit", "miss"), result.candidates[first : first + 2], strict=True):
        services.mark("me", result.query_id, candidate.image_id, verdict)  # type: ignore[arg-type]


def test_captions_with_a_hit_and_a_miss_are_counted_by_person(services: Services) -> None:
    assert services.readiness.now() == Ready(0, 0, 10)
    for number, caption in enumerate(CAPTIONS):
        mark(services, caption, 3 * number)
    ready = services.readiness.now()
    assert (ready.captions, ready.needed) == (3, 10)
    assert ready.missing == 10 - min(3, ready.people)
    assert services.readiness.now() is ready  # nothing has happened since
    mark(services, "a man with a hat", 0, negative="a bag")  # not learnt from, so it judges nothing
    assert services.readiness.now() == ready
    services.undo("me")
    services.undo("me")
    services.undo("me")  # the miss of the third caption
    assert services.readiness.now().captions == 2


def test_captions_of_forgotten_pictures_are_not_counted(services: Services) -> None:
    for number, caption in enumerate(CAPTIONS):
        mark(services, caption, 3 * number)
    before = services.readiness.now().captions
    first = next(mark for mark in services.state.marks.current() if mark.caption == CAPTIONS[0])
    services.forget([first.image_id], "me")
    assert services.readiness.now().captions == before - 1


def test_the_learning_page_says_how_many_are_needed(services: Services) -> None:
    mark(services, CAPTIONS[0], 0)
    board = learning_page.board(services.learning_view("me"), services)
    (tile,) = (tile for tile in board["tiles"] if tile["label"] == "For the quality check")
    assert tile["value"] == "1 of 10"
    assert "it needs 10 descriptions of different people" in board["start"]["what"]
    assert board["help"] == "What would help most: mark a hit and a miss for 9 more people."
    assert Ready(12, 11, 10).missing == 0
    assert Ready(12, 9, 10).missing == 1
