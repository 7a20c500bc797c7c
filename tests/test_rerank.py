"""The aligned query: its gradient, its minimum, and what a re-ranking may and may not move."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.rerank import AlignConfig, align, objective, rerank

CONFIG = AlignConfig()


def unit(rng: np.random.Generator, count: int, width: int = 24) -> NDArray[np.float64]:
    rows = rng.normal(size=(count, width))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def crowd(seed: int, count: int = 200) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """A query, pictures of a person who differs from it by a direction, and others: best first, who is whom."""
    rng = np.random.default_rng(seed)
    query, hidden = unit(rng, 2)
    person = np.arange(count) < count // 10
    rows = 0.6 * query + 0.15 * unit(rng, count) * np.sqrt(24) + np.where(person[:, None], 0.5, -0.1) * hidden
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    order = np.argsort(-(rows @ query), kind="stable")
    return query.astype(np.float32), rows[order].astype(np.float32), person[order]


@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_equals_finite_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, hits, misses = unit(rng, 1)[0], unit(rng, 3), unit(rng, 5)
    w = query + rng.normal(size=24) * 0.3
    _, gradient = objective(w, query, hits, misses, CONFIG)
    for direction in np.eye(24):
        above, _ = objective(w + 1e-6 * direction, query, hits, misses, CONFIG)
        below, _ = objective(w - 1e-6 * direction, query, hits, misses, CONFIG)
        assert gradient @ direction == pytest.approx((above - below) / 2e-6, abs=1e-6)


def test_the_objective_is_the_published_formula() -> None:
    w, query = np.array([2.0, 0.0]), np.array([0.0, 1.0])
    hits, misses = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    expected = np.mean([np.log(1 + np.exp(-2.0)), np.log(2.0)]) + 3 * 0.5 + 5 * (np.cosh(np.log(4.0)) - 1)
    assert objective(w, query, hits, misses, AlignConfig(pull=3, size=5))[0] == pytest.approx(expected)


def test_far_from_everything_the_objective_stays_finite() -> None:
    rows = 1e4 * np.eye(3)
    value, gradient = objective(rows[0], np.eye(3)[1], rows[1:2], rows[:1], CONFIG)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_few_dozen_steps_reach_the_minimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, hits, misses = unit(rng, 1)[0], unit(rng, 4), unit(rng, 12)
    few, many = (align(query, hits, misses, AlignConfig(steps=steps)) for steps in (CONFIG.steps, 2000))
    assert few @ many > 0.9999
    assert few.dtype == np.float32
    assert np.linalg.norm(few) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(few, align(query, hits, misses, CONFIG))


def test_more_pull_stays_nearer_to_the_query() -> None:
    rng = np.random.default_rng(3)
    query, hits, misses = unit(rng, 1)[0], unit(rng, 4), unit(rng, 12)
    near = [float(align(query, hits, misses, AlignConfig(pull=pull)) @ query) for pull in (0.1, 1, 10, 1e3)]
    assert near == sorted(near)
    assert near[-1] > 0.999
    assert near[0] < 0.95


def test_without_a_pair_the_query_is_left_alone() -> None:
    query, rows = unit(np.random.default_rng(0), 1)[0], np.empty((0, 24))
    np.testing.assert_allclose(align(2 * query, unit(np.random.default_rng(1), 2), rows, CONFIG), query, atol=1e-7)


@pytest.mark.parametrize(("hits", "misses", "gain"), [(3, 5, 15), (2, 0, 15), (0, 6, 0)])
def test_marks_bring_the_person_up(hits: int, misses: int, gain: float) -> None:
    """Mean rank of the person's unmarked pictures among 200, over twenty searches."""
    gains = []
    for seed in range(20):
        query, rows, person = crowd(seed)
        verdicts = np.zeros(len(rows), int)
        verdicts[np.flatnonzero(person)[:hits]] = 1
        verdicts[np.flatnonzero(~person)[:misses]] = -1
        unmarked = person & (verdicts == 0)
        order = rerank(query, rows, verdicts)
        gains.append(np.flatnonzero(unmarked).mean() - np.flatnonzero(unmarked[order]).mean())
    assert np.mean(gains) > gain


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 50), st.lists(st.sampled_from([-1, 0, 0, 0, 1]), min_size=1, max_size=40), st.integers(0, 3))
def test_only_unmarked_results_move(seed: int, said: list[int], others: int) -> None:
    query, rows, _ = crowd(seed, 40)
    rows, verdicts = rows[: len(said)], np.array(said)
    judged = verdicts != 0
    judged[:others] = True  # the wrong person: keeps its place and moves no query
    order = rerank(query, rows, verdicts, judged=judged)
    assert sorted(order.tolist()) == list(range(len(rows)))
    assert (order[judged] == np.flatnonzero(judged)).all()
    if not verdicts.any():
        assert (order == np.arange(len(rows))).all()


def test_a_picture_that_stands_twice_keeps_its_order() -> None:
    query, rows, _ = crowd(1, 30)
    rows[10:20] = rows[10]
    verdicts = np.zeros(30, int)
    verdicts[0], verdicts[1] = 1, -1
    order = rerank(query, rows, verdicts).tolist()
    places = [order.index(number) for number in range(10, 20)]
    assert places == sorted(places)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="pull and size above 0"):
        AlignConfig(pull=0)
    with pytest.raises(ValueError, match="at least one step"):
        AlignConfig(steps=0)
