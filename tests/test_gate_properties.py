"""The gate, whatever it is given: order and unknowns do not matter, and nothing gained is nothing promoted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from train.finetuning.gate import Evidence, GateConfig, OnBase, check_marks, hit_precision, hits_over_misses, judge

quickly = settings(max_examples=30, deadline=None, derandomize=True)
CONFIG = GateConfig(resamples=100)
SHAPE = (5, 7)
JUDGED = arrays(np.int8, SHAPE, elements=st.sampled_from([-1, 0, 1]))
SCORES = arrays(np.float64, SHAPE, elements=st.sampled_from([-0.5, 0.0, 0.25, 0.5, 0.75]))
FLAGS = arrays(np.bool_, SHAPE)
SHARES = st.one_of(st.just(float("nan")), st.floats(0, 1, width=16))
ROWS = st.lists(st.tuples(SHARES, SHARES, SHARES, SHARES, SHARES, st.integers(0, 14)), min_size=1, max_size=25)
Row = tuple[float, float, float, float, float, int]


def evidence(rows: list[Row]) -> Evidence:
    values = np.array([row[:5] for row in rows], float)
    values[np.isnan(values[:, :2]).any(axis=1), :2] = np.nan  # a caption says something under both models or neither
    values[np.isnan(values[:, 2:4]).any(axis=1), 2:4] = np.nan
    values[np.isnan(values[:, 0]), 4] = np.nan
    if np.isnan(values[:, :4]).all(axis=0).any():
        values[0] = 0.5
    groups = np.array([row[5] for row in rows])
    return Evidence(*values[:, :4].T, groups, values[:, 4], OnBase(0.5, 0.5, 0.5))


@quickly
@given(JUDGED, SCORES, SCORES, FLAGS)
def test_what_nobody_judged_is_no_negative(
    judged: np.ndarray, scores: np.ndarray, others: np.ndarray, rest: np.ndarray
) -> None:
    unknown = judged == 0
    changed = np.where(unknown, others, scores)
    np.testing.assert_array_equal(hits_over_misses(judged, scores), hits_over_misses(judged, changed))
    changed = np.where(unknown & ~rest, others, scores)
    np.testing.assert_array_equal(hit_precision(judged, scores, rest), hit_precision(judged, changed, rest))


@quickly
@given(JUDGED, SCORES, FLAGS, st.permutations(range(SHAPE[0])), st.permutations(range(SHAPE[1])))
def test_the_order_of_captions_and_pictures_does_not_matter(
    judged: np.ndarray, scores: np.ndarray, rest: np.ndarray, rows: list[int], columns: list[int]
) -> None:
    at = np.ix_(rows, columns)
    np.testing.assert_array_equal(hits_over_misses(judged, scores)[rows], hits_over_misses(judged[at], scores[at]))
    np.testing.assert_array_equal(
        hit_precision(judged, scores, rest)[rows], hit_precision(judged[at], scores[at], rest[at])
    )


@quickly
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_evidence_does_not_matter(rows: list[Row], random: object) -> None:
    given_rows = evidence(rows)
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = replace(
        given_rows,
        **{name: getattr(given_rows, name)[order] for name in Evidence.__slots__ if name != "base"},
    )
    assert judge(given_rows, CONFIG).decision == judge(shuffled, CONFIG).decision


@quickly
@given(ROWS, st.integers(0, 14))
def test_a_caption_that_says_nothing_has_no_effect(rows: list[Row], group: int) -> None:
    """As after an undo of all its marks."""
    given_rows = evidence(rows)
    more = replace(
        given_rows,
        groups=np.append(given_rows.groups, group),
        **{
            name: np.append(getattr(given_rows, name), np.nan)
            for name in ("order_before", "order_after", "precision_before", "precision_after", "order_control")
        },
    )
    assert repr(judge(given_rows, CONFIG)) == repr(judge(more, CONFIG))
    fresh = np.ones(len(rows), bool)
    one = check_marks(given_rows.order_before, given_rows.groups, fresh, CONFIG)
    other = check_marks(more.order_before, more.groups, np.append(fresh, True), CONFIG)
    assert repr(one) == repr(other)


@quickly
@given(ROWS)
def test_what_gains_nothing_is_not_promoted(rows: list[Row]) -> None:
    given_rows = evidence(rows)
    still = replace(given_rows, order_after=given_rows.order_before, precision_after=given_rows.precision_before)
    worse = replace(given_rows, order_after=given_rows.order_before - 0.1)
    assert judge(still, CONFIG).decision == "rejected"
    assert judge(worse, CONFIG).decision == "rejected"
    forgets = judge(replace(given_rows, base=OnBase(0.5, 0.5, 0.4)), CONFIG)
    assert forgets.decision == "rejected"


@quickly
@given(ROWS)
def test_what_is_no_better_than_its_control_is_not_promoted(rows: list[Row]) -> None:
    given_rows = evidence(rows)
    for control in (given_rows.order_after, given_rows.order_after + 0.1, np.full(len(rows), np.nan)):
        assert judge(replace(given_rows, order_control=control), CONFIG).decision == "rejected"
