"""Marks as the page sends them: each counts once, and what was undone can be redone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

from app.app_errors import RequestError
from app.pages.component import JSON
from app.pages.search_page import actions
from app.pages.undoing import Once
from app.search.views import SearchRequest
from app.services import Services


def test_an_op_runs_once_and_its_answer_is_repeated() -> None:
    runs: list[str] = []
    go = Event()

    def slow(payload: JSON, user: str) -> JSON:
        runs.append(user)
        go.wait(10)
        return {"count": len(runs), "of": payload["of"]}

    action, together = Once().each(slow), Barrier(2)

    def call() -> JSON:
        together.wait(10)
        return action({"op": "1", "of": "a"}, "me")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(call), pool.submit(call)
        go.set()
        assert first.result(10) == second.result(10) == {"count": 1, "of": "a"}
    assert action({"op": "1", "of": "b"}, "me") == {"count": 1, "of": "a"}
    assert action({"op": "1", "of": "b"}, "you") == {"count": 2, "of": "b"}
    assert action({"op": "2", "of": "c"}, "me") == {"count": 3, "of": "c"}


def test_a_refused_op_is_tried_again() -> None:
    refusals = [RequestError("no")]

    def once_refused(_: JSON, __: str) -> JSON:
        if refusals:
            raise refusals.pop()
        return {"done": True}

    action = Once().each(once_refused)
    with pytest.raises(RequestError, match="no"):
        action({"op": "1"}, "me")
    assert action({"op": "1"}, "me") == {"done": True}
    for op in (None, 7, "x" * 65):
        with pytest.raises(RequestError, match="op"):
            action({"op": op}, "me")


def test_pictures_are_forgotten_once_however_often_it_is_sent(services: Services) -> None:
    act, before = actions(services)["forget"], services.state.gallery.ids()
    first = act({"op": "1", "image_ids": before[:2]}, "me")
    assert first["pictures"] == 2
    assert act({"op": "1", "image_ids": before[2:4]}, "me") == first
    assert len(services.state.gallery.ids()) == len(before) - 2


def test_undo_says_what_makes_the_action_again(services: Services) -> None:
    found = services.search(SearchRequest("a man in a black jacket"), "me")
    query, images = found.query_id, [candidate.image_id for candidate in found.candidates[:3]]
    act = actions(services)

    def send(name: str, op: str, **payload: object) -> JSON:
        return act[name]({"op": op, "query_id": query, **payload}, "me")

    send("mark", "1", image_ids=images, verdict="miss")
    send("mark", "2", image_ids=images[:1], verdict="hit")
    assert send("undo", "3")["redo"] == {"query_id": query, "image_ids": images[:1], "verdict": "hit"}
    send("mark", "4", image_ids=images[1:], verdict=None)
    undone = send("undo", "5")
    assert undone["redo"] == {"query_id": query, "image_ids": images[1:], "verdict": None}
    assert undone["verdicts"] == dict.fromkeys(images, "miss")
    assert send("undo", "5") == undone
    assert send("undo", "6")["redo"] == {"query_id": query, "image_ids": images, "verdict": "miss"}
    assert send("undo", "7")["redo"] is None


def test_a_verdict_given_in_two_searches_is_redone(services: Services) -> None:
    act = actions(services)
    first, second = (services.search(SearchRequest("a man in a black jacket"), "me") for _ in range(2))
    image = first.candidates[0].image_id
    for number, query in enumerate((first.query_id, second.query_id)):
        act["mark"]({"op": f"m{number}", "query_id": query, "image_ids": [image], "verdict": "hit"}, "me")
    redo = act["undo"]({"op": "u"}, "me")["redo"]
    assert redo == {"query_id": second.query_id, "image_ids": [image], "verdict": "hit"}
