"""What to mark next: every suggestion has a reason that holds, and nobody is asked twice."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_pairs import Given, marks
from train.finetuning.active_learning import LEAP, NEAR, PER_CAPTION, Chance, Ranking, rankings, suggest
from train.finetuning.pairs import Contested


def ranking(caption: str, images: str, *, version: str = "v1", step: float = 0.05) -> Ranking:
    return Ranking(caption, tuple(images), tuple(0.5 - step * at for at in range(len(images))), version)


def test_the_score_most_like_a_coin_toss_comes_first() -> None:
    """Hits at the top, misses from 0.2 below: the boundary lies between, and what lies there is asked."""
    known = [
        Given(f"person {n}", image, verdict)
        for n in range(20)
        for image, verdict in (("a", "hit"), ("b", "hit"), ("e", "miss"), ("f", "miss"))
    ]
    current = [*(ranking(f"person {n}", "abcdef") for n in range(20)), ranking("new", "ghijkl")]
    asked = [one for one in suggest(current, known, k=100) if one.caption == "new"]
    assert [one.image_id for one in asked[:2]] in (["i", "j"], ["j", "i"])
    assert [one.reason for one in asked] == ["uncertain"] * PER_CAPTION
    assert (asked[0].rank, asked[0].score) == ({"i": 3, "j": 4}[asked[0].image_id], pytest.approx(asked[0].score))
    assert re.search(r"Of 80 marked results, about [456] in 10 with a score like this are hits", asked[0].why)


def test_before_any_mark_the_best_results_are_asked() -> None:
    asked = suggest([ranking("red", "abcdef")], [], k=2)
    assert [one.image_id for one in asked] == ["a", "b"]


def test_contradictions_are_asked_of_users_who_have_not_judged() -> None:
    contested = [Contested("Red", "z", 1, 1), Contested("Red", "b", 2, 1), Contested("Red", "c", 1, 1)]
    known = marks("red: z+ z- b+ b+ b- c+ c-")
    asked = suggest([ranking("red", "abc")], known, k=5, contested=contested, mine={("red", "c")})
    conflicts = [one for one in asked if one.reason == "conflict"]
    assert [(one.image_id, one.rank) for one in conflicts] == [("z", None), ("b", 2)], "the closer vote first"
    assert conflicts[1].why == "People contradict each other, 2 hits to 1 miss"
    assert [one.image_id for one in asked if one.reason == "uncertain"] == ["a"]


def test_versions_that_disagree_are_named_with_their_ranks() -> None:
    letters = "abcdefghijklmnop"
    asked = suggest(
        [ranking("red", letters)], [], k=3, former=[ranking("Red!", "bcdefghijklmna", version="v0")]
    )  # fmt: skip
    leap = next(one for one in asked if one.reason == "disagreement")
    assert (leap.image_id, leap.rank) == ("a", 1)
    assert leap.why == "Rank 1 by v1, 14 by v0"
    unseen = suggest([ranking("red", "xbc")], [], k=1, former=[ranking("red", "bcdefghij", version="v0")])
    assert unseen[0].why == "Rank 1 by v1, below 9 by v0"
    assert suggest([ranking("red", letters)], [], k=1, former=[ranking("red", letters)])[0].reason == "uncertain"


CURRENT = [ranking("red", "abcdef"), ranking("blue", "fedcba"), ranking("a child", "cafe")]
FORMER = [ranking("red", "fedcba", version="v0"), ranking("Blue", "abcdef", version="v0")]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(
        st.builds(
            Given,
            st.sampled_from(["red", "RED!", "blue"]),
            st.sampled_from("abcdef"),
            st.sampled_from(["hit", "miss", "wrong_person"]),
        )
    ),
    st.integers(1, 9),
)
def test_nothing_judged_is_asked_and_no_pair_twice(said: list[Given], k: int) -> None:
    asked = suggest(CURRENT, said, k=k, former=FORMER)
    pairs = [(one.caption, one.image_id) for one in asked]
    assert len(pairs) == len(set(pairs)) <= k
    assert not set(pairs) & {(mark.caption.lower().strip("!"), mark.image_id) for mark in said}
    assert all(0 <= one.worth <= 1 for one in asked)
    assert max(np.unique([caption for caption, _ in pairs], return_counts=True)[1], default=0) <= PER_CAPTION
    assert asked == suggest(CURRENT[::-1], said[::-1], k=k, former=FORMER), "the order of what is known is no matter"


def test_rankings_of_a_matrix_are_its_best_columns() -> None:
    scores = np.array([[0.1, 0.5, 0.5, 0.3], [0.4, 0.3, 0.2, 0.1]])
    first, second = rankings(["red", "blue"], list("abcd"), scores, "v1", top=3)
    assert (first.image_ids, first.scores) == (("b", "c", "d"), (0.5, 0.5, 0.3))
    assert second.image_ids == ("a", "b", "c")
    assert NEAR * LEAP < 100, "a disagreement fits into the rankings"


def penalised(seen: list[tuple[float, bool]], at_top: float, slope: float) -> float:
    """What the curve minimises: the marks' surprise, and how far it is from even odds at the top and 0.1 at -0.2."""
    logits = np.array([at_top + slope * gap for gap, _ in seen])
    surprise = np.logaddexp(0, logits) - logits * np.array([hit for _, hit in seen])
    return float(surprise.sum() + 0.25 * at_top**2 + 0.001 * (slope - np.log(9) / 0.2) ** 2)


MANY_MISSES = [(-0.05 - 0.005 * n, False) for n in range(10)]


@pytest.mark.parametrize(
    ("seen", "flat"),
    [
        ([(-0.4, True)], True),
        ([(-0.4, True)] * 40, True),
        ([(-0.3 - 0.01 * n, True) for n in range(3)] + MANY_MISSES, True),
        ([(0.0, True)] * 5 + [(-0.3, False)] * 50, False),
        ([], False),
    ],
)
def test_the_curve_of_chances_is_the_best_that_never_falls(seen: list[tuple[float, bool]], flat: bool) -> None:
    curve = Chance.fitted(seen)
    assert (curve.slope == 0) == flat
    found = penalised(seen, curve.at_top, curve.slope)
    tops = np.linspace(-6, 6, 49)
    slopes = np.linspace(0, 40, 81)
    assert found <= min(penalised(seen, top, slope) for top in tops for slope in slopes) + 1e-9


def test_hits_far_below_misses_leave_the_share_of_hits_at_every_score() -> None:
    curve = Chance.fitted([(-0.3 - 0.01 * n, True) for n in range(3)] + MANY_MISSES)
    assert curve.of(0.0) == curve.of(-0.4) == pytest.approx(3 / 13, abs=0.05)
