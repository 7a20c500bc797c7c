"""What the search page asks, its address, and the request it becomes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.app_errors import RequestError
from app.pages.query_state import asked_of, from_address, is_empty, nothing, request_of, to_address
from app.web.api import filters_from
from core.core_errors import PictureError
from store.store_errors import GalleryError, MarkError

ID = "a" * 64
FULL = {
    "text": "a man & a dog", "without": "hat?", "like": ID, "picture": None, "image_weight": 0.7,
    "filters": {
        "camera": ["gate 1", "gate=2"], "source": ["s"], "pid": ["7"], "captured_from": "2026-11-01",
        "captured_to": "2026-11-02", "metadata": {"weather": ["sun", "rain"], "a.b": ["c"]},
    },
}  # fmt: skip


def test_an_address_repeats_all_that_is_asked() -> None:
    assert from_address(to_address(FULL)) == FULL
    assert from_address(to_address(nothing())) == nothing()
    assert to_address(nothing()) == []
    assert to_address(nothing() | {"text": "a man"}) == [("q", "a man")]
    assert from_address([("tab", "marks"), ("__theme", "dark")]) == nothing()


def test_an_uploaded_picture_is_not_in_the_address() -> None:
    asked = nothing() | {"picture": {"path": "x", "name": "secret.jpg"}, "image_weight": 0.3}
    assert to_address(asked) == []
    assert not is_empty(asked)
    assert is_empty(nothing() | {"text": " \n"})
    assert not is_empty(nothing() | {"like": ID})


def test_it_becomes_a_request(tmp_path: Path) -> None:
    request = request_of(FULL, tmp_path, 24)
    assert (request.text, request.negative, request.like, request.image_weight, request.k) == (
        "a man & a dog", "hat?", ID, 0.7, 24,
    )  # fmt: skip
    filters = request.filters
    assert filters is not None
    assert (filters.camera, filters.source, filters.pid) == (("gate 1", "gate=2"), ("s",), ("7",))
    assert filters.captured_from == datetime(2026, 11, 1, tzinfo=filters.captured_from.tzinfo)  # type: ignore[union-attr]
    assert filters.captured_to == datetime(2026, 11, 2, 23, 59, 59, 999999, tzinfo=UTC)  # the whole of that day
    assert filters.metadata == (("weather", "sun"), ("weather", "rain"), ("a.b", "c"))


def test_the_api_takes_days_and_times_as_the_page_does() -> None:
    day = filters_from({"captured_from": "2026-11-02", "captured_to": "2026-11-02"})
    assert day.captured_to == datetime(2026, 11, 2, 23, 59, 59, 999999, tzinfo=UTC)
    assert (
        day.expression([]).to_sql()
        == filters_from({"captured_from": "2026-11-02T00:00:00Z", "captured_to": "2026-11-02T23:59:59.999999Z"})
        .expression([])
        .to_sql()
    )
    assert filters_from({"captured_to": "2026-11-02T10:00"}).captured_to == datetime(2026, 11, 2, 10)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"text": 5}, "must be text"),
        ({"text": "a man", "without": ["x"]}, "must be text"),
        ({"text": "a man", "like": "../app.db"}, "image_id"),
        ({"text": "a man", "like": 5}, "image_id"),
        ({"text": "a man", "image_weight": "much"}, "words only"),
        ({"text": "a man", "picture": "/etc/passwd"}, "never read"),
        ({"text": "a man", "picture": {"path": "/etc/passwd"}}, "not uploaded here"),
        ({"text": "a man", "filters": []}, "object"),
        ({"text": "a man", "filters": {"where": "1=1"}}, "known ones"),
        ({"text": "a man", "filters": {"camera": "gate"}}, "camera"),
        ({"text": "a man", "filters": {"metadata": {"k": "v"}}}, "metadata"),
        ({"text": "a man", "filters": {"captured_from": "soon"}}, "captured_from"),
        ({"text": "a man", "filters": {"captured_from": "2026-11-02", "captured_to": "2026-11-01"}}, "Swap them"),
    ],
)
def test_what_no_script_of_ours_sends_is_refused_in_words(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises((RequestError, GalleryError, MarkError, PictureError), match=said):
        request_of(asked_of(given), tmp_path, 24)


def test_what_is_no_object_asks_nothing() -> None:
    assert asked_of(None) == asked_of([1]) == asked_of({"unknown": 1}) == nothing()


def test_an_address_of_900_values_is_refused_in_words(tmp_path: Path) -> None:
    asked = from_address([("q", "a man"), *((f"meta.v{n % 9}", str(n)) for n in range(900))])
    with pytest.raises(GalleryError, match="at most 200 values together; 900 came"):
        request_of(asked, tmp_path, 24)
