"""From which score on a result is called a weak match, estimated from marks of the version in use."""

from __future__ import annotations

import numpy as np
import pytest

from app.pages import learning_page, search_page
from app.pages.query_state import nothing
from app.search.cutoff import LEAST, USUAL, Cutoff, estimate
from app.search.views import SearchRequest
from app.services import Services
from tests.conftest import add_version

CAPTIONS = ("a man in a black jacket", "a woman in a red coat", "a child with a backpack", "a man with a hat")


def test_gaps_that_separate_are_cut_midway() -> None:
    found = estimate([0.01] * 20 + [0.04] * 10, [0.06] * 5 + [0.2] * 30)
    assert found == Cutoff(0.05, 30, 35, 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_cut_separates_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hits, misses = np.abs(rng.normal(0.05, 0.04, 90)), np.abs(rng.normal(0.12, 0.06, 40))
    found = estimate(list(hits), list(misses))

    def balanced(gap: float) -> float:
        return float((hits <= gap).mean() + (misses > gap).mean()) / 2

    best = max(balanced(gap) for gap in [*hits, *misses])
    assert found.accuracy == pytest.approx(best)
    assert balanced(found.gap) == pytest.approx(best, abs=0.02)  # the gap is rounded to four digits


def test_too_few_marks_keep_the_usual_cut() -> None:
    assert estimate([0.0] * LEAST, [0.3] * (LEAST - 1)) == Cutoff(USUAL, LEAST, LEAST - 1)
    assert "usual value: fewer than 30 hits and 30 misses" in Cutoff(USUAL, 29, 400).text("v1")


@pytest.mark.parametrize("hits", [[0.3] * 40, [0.1] * 40])
def test_marks_that_do_not_separate_keep_the_usual_cut(hits: list[float]) -> None:
    found = estimate(hits, [0.1] * 40)
    assert found == Cutoff(USUAL, 40, 40)
    assert "no better scores than its misses" in found.text("v1")


def test_of_equally_good_cuts_fewer_results_are_weak() -> None:
    found = estimate([0.1] * 15 + [0.3] * 15, [0.2] * 15 + [0.4] * 15)
    assert (found.gap, found.accuracy) == (0.35, 0.75)


def test_searches_take_the_estimate_of_their_version(services: Services) -> None:
    def shown() -> tuple[float, float]:
        board = search_page.answer(services, nothing() | {"text": CAPTIONS[0]}, "me")
        return board["weak_gap"], board["candidates"][0]["score"] - board["weak_below"]

    assert shown() == pytest.approx((USUAL, USUAL))
    for caption in CAPTIONS:
        result = services.search(SearchRequest(caption), "me")
        images = [candidate.image_id for candidate in result.candidates]
        services.mark_rest("me", result.query_id, images[1:9], "hit")  # the best result is never called weak
        services.mark_rest("me", result.query_id, images[-8:], "miss")
    assert shown() == pytest.approx((USUAL, USUAL)), "no search estimates it"
    said = learning_page.board(services.learning_view("me"), services)["cutoff"]
    found = services.cutoffs.refresh()
    assert services.cutoffs.refresh() is found, "nothing has happened since"
    assert (found.hits, found.misses) == (32, 32)
    assert "estimated from 64 marks" in said
    assert found.gap != USUAL
    assert shown() == pytest.approx((found.gap, found.gap))
    services.undo("me")  # the misses of one description
    assert services.cutoffs.refresh() == Cutoff(USUAL, 32, 24)
    services.promote(add_version(services), "me")
    assert services.cutoffs.refresh() == Cutoff(USUAL, 0, 0), "marks of another version say nothing"
