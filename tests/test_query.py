"""Query algebra: what may be asked of unit rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.core_errors import QueryError
from core.query import NEGATIVE_WEIGHT, SAME_PICTURE, combine, near_duplicates

E = 24


def unit(seed: int) -> NDArray[np.float32]:
    row = np.random.default_rng(seed).normal(size=E)
    return (row / np.linalg.norm(row)).astype(np.float32)


def axis(index: int) -> NDArray[np.float32]:
    return np.eye(E, dtype=np.float32)[index]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("given", ["text", "image", "text image", "text negative", "text image negative"])
def test_the_result_is_one_unit_float32_row(seed: int, given: str) -> None:
    rows = {name: unit(seed * 3 + n) for n, name in enumerate(given.split())}
    query = combine(**rows)
    assert query.dtype == np.float32
    assert query.shape == (E,)
    assert np.linalg.norm(query) == pytest.approx(1, abs=1e-6)


def test_one_part_alone_is_the_query() -> None:
    np.testing.assert_allclose(combine(text=unit(0)), unit(0), atol=1e-6)
    np.testing.assert_allclose(combine(image=unit(1)), unit(1), atol=1e-6)


def test_text_and_picture_are_mixed_by_weight() -> None:
    text, image = axis(0), axis(1)
    np.testing.assert_allclose(combine(text=text, image=image), (text + image) / np.sqrt(2), atol=1e-6)
    np.testing.assert_allclose(combine(text=text, image=image, image_weight=0.0), text, atol=1e-6)
    np.testing.assert_allclose(combine(text=text, image=image, image_weight=1.0), image, atol=1e-6)
    quarter = combine(text=text, image=image, image_weight=0.25)
    np.testing.assert_allclose(quarter, (3 * text + image) / np.sqrt(10), atol=1e-6)


@pytest.mark.parametrize("seed", range(50))
def test_a_negative_lowers_its_own_likeness_below_the_query(seed: int) -> None:
    text, negative = unit(seed), unit(seed + 1000)
    if seed % 2:  # likenesses as they occur: close to the query
        negative = text + 0.5 * negative
        negative = (negative / np.linalg.norm(negative)).astype(np.float32)
    query = combine(text=text, negative=negative)
    assert query @ negative < text @ negative
    assert query @ text > 0.9  # at most arctan(0.4) away
    assert query @ text > query @ negative


def test_only_what_differs_from_the_query_is_taken_away() -> None:
    text, hood = axis(0), axis(1)
    negative = (0.8 * text + 0.6 * hood).astype(np.float32)
    query = combine(text=text, negative=negative)
    expected = text - NEGATIVE_WEIGHT * 0.6 * hood
    np.testing.assert_allclose(query, expected / np.linalg.norm(expected), atol=1e-6)
    np.testing.assert_allclose(combine(text=text, negative=text), text, atol=1e-6)
    np.testing.assert_allclose(combine(text=text, negative=-text), text, atol=1e-6)


def test_the_negative_has_a_weight() -> None:
    text, hood = axis(0), axis(1)
    np.testing.assert_allclose(combine(text=text, negative=hood, negative_weight=0.0), text, atol=1e-6)
    half = combine(text=text, negative=hood, negative_weight=0.5)
    np.testing.assert_allclose(half, (text - 0.5 * hood) / np.sqrt(1.25), atol=1e-6)


def test_inputs_are_left_as_they_were() -> None:
    rows = {"text": unit(0), "image": unit(1), "negative": unit(2)}
    before = {name: row.copy() for name, row in rows.items()}
    combine(**rows)
    assert all(np.array_equal(rows[name], before[name]) for name in rows)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({}, "expected a description or a picture to search for, got neither"),
        ({"negative": axis(0)}, "expected a description or a picture to search for, got neither"),
        ({"text": axis(0), "image": -axis(0)}, "cancel each other out: drop one of them"),
        ({"text": np.zeros(E, np.float32)}, "cancel each other out"),
        ({"text": np.full(E, np.nan, np.float32)}, "cancel each other out"),
        ({"text": axis(0), "image": axis(1), "image_weight": 1.5}, r"between 0 and 1, not 1\.5"),
        ({"text": axis(0), "image": axis(1), "image_weight": -0.1}, r"between 0 and 1, not -0\.1"),
        ({"text": axis(0), "image_weight": float("nan")}, "between 0 and 1, not nan"),
        ({"text": axis(0), "negative": axis(1), "negative_weight": 1.1}, r"negative_weight must .* not 1\.1"),
    ],
)
def test_a_query_of_nothing_is_refused(parts: dict[str, Any], says: str) -> None:
    with pytest.raises(QueryError, match=says):
        combine(**parts)


# Near duplicates


def at_angle(*cosines: float) -> NDArray[np.float32]:
    """Unit rows in one plane, each at this cosine from the first axis."""
    rows = np.zeros((len(cosines), E), np.float32)
    rows[:, 0] = cosines
    rows[:, 1] = np.sqrt(1 - np.square(cosines))
    return rows


def test_duplicates_stand_behind_the_best_ranked_of_them() -> None:
    rows = np.stack([axis(0), axis(1), axis(0), axis(2), axis(1), axis(0)])
    assert near_duplicates(rows).tolist() == [0, 1, 0, 3, 1, 0]
    assert near_duplicates(rows[:0]).tolist() == []
    assert near_duplicates(rows[:1]).tolist() == [0]


def test_the_threshold_itself_is_a_duplicate_and_less_is_none() -> None:
    assert near_duplicates(at_angle(1.0, 0.8), threshold=0.8).tolist() == [0, 0]
    assert near_duplicates(at_angle(1.0, 0.79), threshold=0.8).tolist() == [0, 1]
    assert near_duplicates(at_angle(1.0, SAME_PICTURE - 0.001)).tolist() == [0, 1]


def test_small_steps_do_not_melt_into_one() -> None:
    angles = np.cos(np.arange(6) * 0.2)  # neighbours are 0.2 apart, and a duplicate may be 0.25 away
    assert near_duplicates(at_angle(*angles), threshold=float(np.cos(0.25))).tolist() == [0, 0, 2, 2, 4, 4]


@pytest.mark.parametrize("seed", range(10))
def test_every_duplicate_is_close_to_the_one_that_stands_for_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(12, E))[rng.integers(0, 12, 60)] + 0.15 * rng.normal(size=(60, E))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    leader = near_duplicates(rows, threshold=0.95)
    stand = np.flatnonzero(leader == np.arange(60))
    assert 12 <= len(stand) < 60
    for row in range(60):
        earlier = [one for one in stand if one < row and rows[one] @ rows[row] >= 0.95]
        assert leader[row] == (earlier[0] if earlier else row)
