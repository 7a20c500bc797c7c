"""The control for learning from marks: the same marks, with verdicts that say nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.coloured import Mark, people
from train.finetuning.controls import shuffled
from train.finetuning.gate import hits_over_misses
from train.finetuning.pairs import Pairs, build, relate

HERE = people()
PAIRS = build(HERE.marks())
MARKS = st.lists(
    st.builds(
        Mark,
        st.sampled_from(["red", "blue", "green", "black"]),
        st.sampled_from(list("abcdef")),
        st.sampled_from(["hit", "miss", "miss", "wrong_person"]),
        st.integers(1, 9),
        st.sampled_from([0.1, 0.2, 0.3]),
    ),
    max_size=30,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(MARKS, st.integers(0, 9))
def test_each_caption_keeps_its_number_of_hits_and_misses(marks: list[Mark], seed: int) -> None:
    pairs = build(marks)
    other = shuffled(pairs, np.random.default_rng(seed))
    for verdict in (-1, 1):
        np.testing.assert_array_equal((other.judged == verdict).sum(axis=1), (pairs.judged == verdict).sum(axis=1))
    np.testing.assert_array_equal(other.judged != 0, pairs.judged != 0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(MARKS, st.integers(0, 9))
def test_all_but_the_verdicts_stays(marks: list[Mark], seed: int) -> None:
    pairs = build(marks)
    other = shuffled(pairs, np.random.default_rng(seed))
    for name in Pairs.__slots__:
        if name not in ("judged", "relation", "agreement"):
            one, two = getattr(pairs, name), getattr(other, name)
            assert np.array_equal(one, two, equal_nan=name == "scores"), name


@settings(max_examples=100, deadline=None, derandomize=True)
@given(MARKS, st.integers(0, 9))
def test_the_relation_follows_the_shuffled_verdicts(marks: list[Mark], seed: int) -> None:
    other = shuffled(build(marks), np.random.default_rng(seed))
    np.testing.assert_array_equal(other.relation, relate(other.judged, other.groups, other.withheld))
    assert (other.relation[other.withheld] == 0).all()


def test_the_marks_themselves_stay_as_they_are() -> None:
    judged, agreement = PAIRS.judged.copy(), PAIRS.agreement.copy()
    other = shuffled(PAIRS, np.random.default_rng(0))
    assert np.array_equal(PAIRS.judged, judged)
    assert np.array_equal(PAIRS.agreement, agreement)
    assert not np.array_equal(other.judged, judged)


def test_how_far_a_verdict_is_agreed_upon_goes_with_it() -> None:
    doubted = [Mark("red", "a", verdict) for verdict in ("hit", "hit", "miss")]
    pairs = build([*doubted, *(Mark("red", image, "miss") for image in "bcdef")])
    for seed in range(10):
        other = shuffled(pairs, np.random.default_rng(seed))
        assert other.agreement[0, other.judged[0] > 0].tolist() == pytest.approx([1 / 3])
        assert other.agreement[0, other.judged[0] < 0].tolist() == [1] * 5


def test_shuffled_verdicts_say_nothing_of_the_scores() -> None:
    clear = build(replace(mark, score=0.9 if mark.verdict == "hit" else 0.1) for mark in HERE.marks())
    assert np.nanmean(hits_over_misses(clear.judged, clear.scores)) == 1.0
    drawn = [shuffled(clear, np.random.default_rng(seed)) for seed in range(20)]
    found = [np.nanmean(hits_over_misses(other.judged, clear.scores)) for other in drawn]
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)


def test_the_same_seed_shuffles_alike() -> None:
    one, again, other = (shuffled(PAIRS, np.random.default_rng(seed)).judged for seed in (0, 0, 1))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
