"""Marks -> pairs: what nobody judged is never a negative, and no identity stands on both sides of a fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from train.finetuning.pairs import (
    JOIN_OVERLAP,
    NEGATIVE,
    POSITIVE,
    SAFE,
    UNKNOWN,
    Pairs,
    build,
    halves,
    hardness,
    image_relation,
    join,
    split,
)

thoroughly = settings(max_examples=150, deadline=None, derandomize=True)


@dataclass(frozen=True, slots=True)
class Given:
    caption: str
    image_id: str
    verdict: str
    rank: int = 1
    score: float = 0.5
    version: str = "v0"


CAPTIONS = (
    "a man in red",
    "A man in red.",
    "a woman",
    "someone tall",
    "two bags",
    "a child",
    "blue coat",
    "BLUE COAT!",
)
IMAGES = tuple("abcdefgh")
MARKS = st.lists(
    st.builds(
        Given,
        st.sampled_from(CAPTIONS),
        st.sampled_from(IMAGES),
        st.sampled_from(["hit", "hit", "miss", "wrong_person"]),
        st.integers(1, 10),
        st.sampled_from([0.1, 0.25, 0.5, 0.75]),
    ),
    max_size=40,
)


def key(caption: str) -> str:
    return caption.lower().strip(".!")


def marks(*said: str) -> list[Given]:
    """ "red: a+ b- c?" is caption "red" with a hit, a miss and a wrong person."""
    verdicts = {"+": "hit", "-": "miss", "?": "wrong_person"}
    lines = [line.split(": ") for line in said]
    return [Given(caption, word[:-1], verdicts[word[-1]]) for caption, words in lines for word in words.split()]


def relation(pairs: Pairs, caption: str, image: str) -> int:
    return int(pairs.relation[pairs.captions.index(caption), pairs.image_ids.index(image)])


def said_of(given_marks: Sequence[Given], caption: str, image: str) -> list[str]:
    return [m.verdict for m in given_marks if key(m.caption) == key(caption) and m.image_id == image]


def same(one: Pairs, other: Pairs) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=name == "scores") for name in Pairs.__slots__
    )


@thoroughly
@given(MARKS, st.randoms(use_true_random=False))
def test_the_order_of_the_marks_does_not_matter(given_marks: list[Given], random: object) -> None:
    shuffled = list(given_marks)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert same(build(given_marks), build(shuffled))


@thoroughly
@given(MARKS)
def test_only_a_miss_is_negative_and_only_a_strangers_hit_is_safe(given_marks: list[Given]) -> None:
    pairs = build(given_marks)
    for row, caption in enumerate(pairs.captions):
        for column, image in enumerate(pairs.image_ids):
            found, said = pairs.relation[row, column], said_of(given_marks, caption, image)
            if found == NEGATIVE:
                assert said.count("miss") > said.count("hit")
            if found == SAFE:
                assert not said
                hit_by = {int(group) for group in pairs.groups[pairs.judged[:, column] > 0]}
                assert hit_by
                assert int(pairs.groups[row]) not in hit_by
                assert (pairs.judged[pairs.groups == pairs.groups[row]] > 0).any()
            if not said and not (pairs.judged[:, column] > 0).any():
                assert found == UNKNOWN


@thoroughly
@given(MARKS)
def test_wrong_person_is_never_a_negative_of_any_kind(given_marks: list[Given]) -> None:
    pairs = build(given_marks)
    for row, caption in enumerate(pairs.captions):
        for column, image in enumerate(pairs.image_ids):
            said = said_of(given_marks, caption, image)
            if "wrong_person" in said:
                assert pairs.relation[row, column] in (UNKNOWN, POSITIVE)
            if set(said) == {"wrong_person"}:
                assert pairs.relation[row, column] == UNKNOWN
                assert pairs.judged[row, column] == 0


@thoroughly
@given(MARKS)
def test_an_even_contradiction_leaves_an_unknown_that_is_listed(given_marks: list[Given]) -> None:
    pairs = build(given_marks)
    listed = {(key(caption), image) for caption, image in pairs.conflicts}
    for row, caption in enumerate(pairs.captions):
        for column, image in enumerate(pairs.image_ids):
            said = said_of(given_marks, caption, image)
            even = "hit" in said and said.count("hit") == said.count("miss")
            assert ((key(caption), image) in listed) == even
            if even:
                assert pairs.relation[row, column] == UNKNOWN
                assert pairs.judged[row, column] == 0


@thoroughly
@given(MARKS, st.integers(0, 5))
def test_no_identity_stands_on_both_sides_of_a_fold(given_marks: list[Given], seed: int) -> None:
    pairs = build(given_marks)
    judged_captions: list[str] = []
    for training, held_out in halves(pairs, seed=seed):
        assert not set(training.captions) & set(held_out.captions)
        assert not set(training.groups.tolist()) & set(held_out.groups.tolist())
        their_pictures = {held_out.image_ids[c] for c in np.flatnonzero((held_out.judged > 0).any(axis=0))}
        taught = {training.image_ids[c] for c in np.flatnonzero((training.judged != 0).any(axis=0))}
        assert not their_pictures & taught
        assert (((training.judged != 0) | training.withheld).any(axis=0)).all()
        judged_captions += held_out.captions
    assert sorted(judged_captions) == sorted(pairs.captions)  # every caption is judged once


@thoroughly
@given(MARKS, st.integers(0, 5))
def test_a_fold_knows_no_more_than_its_marks_say(given_marks: list[Given], seed: int) -> None:
    for fold in (part for both in halves(build(given_marks), seed=seed) for part in both):
        for row, caption in enumerate(fold.captions):
            for column, image in enumerate(fold.image_ids):
                said = said_of(given_marks, caption, image)
                if fold.relation[row, column] in (NEGATIVE, SAFE):
                    assert "wrong_person" not in said
                    assert fold.relation[row, column] == SAFE or "miss" in said


@thoroughly
@given(MARKS, st.integers(0, 5))
def test_both_halves_get_as_many_people_with_hits(given_marks: list[Given], seed: int) -> None:
    pairs = build(given_marks)
    first, second = split(pairs, seed=seed)
    assert (first ^ second).all()
    hit = (pairs.judged > 0).any(axis=1)
    assert 0 <= len(set(pairs.groups[first & hit])) - len(set(pairs.groups[second & hit])) <= 1


def test_captions_that_differ_in_case_and_punctuation_are_one() -> None:
    pairs = build(marks("A man, in RED!: a+ b-", "a man in red: c+", "a  man in red.: b-"))
    assert len(pairs.captions) == 1
    assert (pairs.hits, pairs.misses) == (2, 1)


def test_a_hit_a_miss_and_the_rest() -> None:
    pairs = build(marks("red: a+ b-", "blue: c+ d-"))
    assert pairs.captions == ("blue", "red")
    assert pairs.image_ids == ("a", "b", "c", "d")
    assert pairs.relation.tolist() == [[SAFE, UNKNOWN, POSITIVE, NEGATIVE], [POSITIVE, NEGATIVE, SAFE, UNKNOWN]]
    assert pairs.judged.tolist() == [[0, 0, 1, -1], [1, -1, 0, 0]]
    assert pairs.conflicts == ()


def test_nothing_is_safe_of_a_caption_without_hits() -> None:
    """It may mean the same person in other words."""
    pairs = build(marks("in vain: b-", "reworded: a+"))
    assert relation(pairs, "in vain", "a") == UNKNOWN
    assert relation(pairs, "in vain", "b") == NEGATIVE


def test_a_wrong_person_that_is_someone_elses_hit_stays_unknown() -> None:
    pairs = build(marks("red: a+ c?", "blue: c+"))
    assert relation(pairs, "red", "c") == UNKNOWN
    assert relation(pairs, "blue", "a") == SAFE


def test_a_conflict_over_someone_elses_hit_stays_unknown() -> None:
    pairs = build(marks("red: a+ c+ c-", "blue: c+"))
    assert relation(pairs, "red", "c") == UNKNOWN
    assert pairs.conflicts == (("red", "c"),)


def test_a_miss_that_somebody_says_fits_the_words_is_unknown() -> None:
    pairs = build(marks("red: a+ b-", "red: b?"))
    assert relation(pairs, "red", "b") == UNKNOWN
    assert pairs.misses == 0
    assert pairs.conflicts == ()


def test_the_majority_decides() -> None:
    pairs = build(marks("red: a+", "red: a+", "red: a- b-", "red: b-", "red: b+"))
    assert relation(pairs, "red", "a") == POSITIVE
    assert relation(pairs, "red", "b") == NEGATIVE
    assert pairs.conflicts == ()


def test_captions_of_one_person_share_their_pictures() -> None:
    pairs = build(marks("red: a+ b+", "in a red coat: b+ c+ d-", "blue: d+"))
    red, coat, blue = (int(pairs.groups[pairs.captions.index(c)]) for c in ("red", "in a red coat", "blue"))
    assert red == coat != blue
    assert relation(pairs, "red", "c") == POSITIVE  # hit for the same person by other words
    assert relation(pairs, "red", "d") == SAFE
    assert relation(pairs, "in a red coat", "d") == NEGATIVE


def test_a_miss_that_the_persons_other_caption_hits_is_unknown() -> None:
    pairs = build(marks("red: a+ b+ c-", "in red: a+ b+ c+"))
    assert relation(pairs, "red", "c") == UNKNOWN


def test_one_wrong_hit_among_many_does_not_tie_two_people_together() -> None:
    assert join(np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]], np.int8)).tolist() == [0, 1]
    assert JOIN_OVERLAP * 3 > 1
    assert join(np.array([[1, 1, 0], [0, 1, 1]], np.int8)).tolist() == [0, 0]


def test_joining_is_transitive() -> None:
    chain = np.zeros((6, 7), np.int8)
    for row in (4, 1, 3, 0, 5, 2):
        chain[row, row : row + 2] = 1
    for row, following in pairwise(range(6)):
        assert (chain[row] * chain[following]).sum() == 1
    assert set(join(chain).tolist()) == {0}


def test_pictures_with_no_verdict_but_wrong_person_leave_nothing() -> None:
    pairs = build(marks("red: a? b?"))
    assert (pairs.captions, pairs.image_ids, pairs.hits, pairs.misses) == ((), (), 0, 0)
    assert [part.captions for fold in halves(pairs) for part in fold] == [(), (), (), ()]


def test_a_picture_judged_the_wrong_person_only_has_its_column() -> None:
    """It fits the words: a ranking must not take it for one that nobody judged."""
    pairs = build(marks("red: a+ b-", "red: c?", "blue: a-", "green: d?"))
    assert (pairs.captions, pairs.image_ids) == (("blue", "red"), ("a", "b", "c"))
    assert pairs.withheld.tolist() == [[False, False, False], [False, False, True]]
    assert relation(pairs, "red", "c") == relation(pairs, "blue", "c") == UNKNOWN
    assert pairs.subset(np.array([False, True])).image_ids == ("a", "b", "c")


def test_a_person_with_a_learnt_caption_is_not_fresh_and_judges_nothing() -> None:
    given_marks = marks("red: a+ b+ e-", "In red!: b+ c-", "blue: d+ e-", "green: f+ g-", "black: h+ a-")
    pairs = build(given_marks, learnt={"in red"})
    assert dict(zip(pairs.captions, pairs.fresh.tolist(), strict=True)) == {
        "black": True, "blue": True, "green": True, "In red!": False, "red": False,
    }  # fmt: skip
    judged = [caption for _, held_out in halves(pairs) for caption in held_out.captions]
    assert sorted(judged) == ["black", "blue", "green"]
    for training, held_out in halves(pairs):
        assert {"In red!", "red"} <= set(training.captions)
        assert not set(training.captions) & set(held_out.captions)


def test_scores_are_those_at_marking() -> None:
    pairs = build([Given("red", "a", "hit", score=0.25), Given("red", "b", "miss", score=0.5), Given("x", "b", "hit")])
    np.testing.assert_array_equal(pairs.scores, np.array([[0.25, 0.5], [np.nan, 0.5]], np.float32))


def test_scores_remember_the_version_they_are_of() -> None:
    given_marks = [Given("red", "a", "hit"), Given("red", "b", "miss", version="v2"), Given("x", "b", "hit")]
    assert build(given_marks).shown_by.tolist() == [[0, 1], [-1, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_the_split_is_the_same_every_time_and_differs_by_seed(seed: int) -> None:
    pairs = build([Given(f"caption {n}", f"p{n}", "hit") for n in range(30)])
    one, again = split(pairs, seed=seed), split(pairs, seed=seed)
    assert np.array_equal(one[0], again[0])
    assert not np.array_equal(one[0], split(pairs, seed=seed + 1)[0])
    assert one[0].sum() == one[1].sum() == 15


# How much a pair is worth


def test_contradictory_marks_weigh_by_agreement_and_are_listed() -> None:
    pairs = build(marks("red: a+ b+ c-", "red: a+ b-", "Red!: a-"))
    assert pairs.agreement.tolist() == [[np.float32(1 / 3), 0, 1]]
    assert [(c.caption, c.image_id, c.hits, c.misses) for c in pairs.contested] == [
        ("Red!", "a", 2, 1), ("Red!", "b", 1, 1),
    ]  # fmt: skip
    assert pairs.conflicts == (("Red!", "b"),)
    assert build(marks("red: a+ a? b-")).contested == ()


def test_nobodys_verdict_has_no_weight() -> None:
    pairs = build(marks("red: a+ b? c-", "blue: d-"))
    assert (pairs.agreement > 0).tolist() == (pairs.ranks > 0).tolist() == (~np.isnan(pairs.scores)).tolist()
    half = pairs.subset(np.array([False, True]))
    assert half.captions == ("red",)
    assert half.agreement.tolist() == [[1, 0, 1]]


def test_a_hit_ranked_low_and_a_miss_ranked_high_are_hard() -> None:
    pairs = build(
        [
            Given("red", "a", "miss", 1, 0.9),
            Given("red", "b", "hit", 2, 0.8),
            Given("red", "c", "hit", 7, 0.5),
            Given("red", "d", "miss", 9, 0.25),
            Given("red", "e", "wrong_person", 3, 0.7),
            Given("blue", "a", "hit", 4, 0.5),
        ]
    )
    found = hardness(pairs)
    blue, red = found.rank
    np.testing.assert_array_equal(blue, np.array([4] + [np.nan] * 4, np.float32))
    np.testing.assert_array_equal(red, np.array([1, 2, 7, 9, np.nan], np.float32))
    # the miss at the top is above the worst hit, the last hit below the best miss; the last miss is in order
    np.testing.assert_allclose(found.margin[1], [0.4, 0.1, 0.4, -0.25, np.nan], rtol=1e-5)
    assert np.isnan(found.margin[0]).all(), "there is no miss to compare with"


def test_hardness_under_another_model_ranks_among_the_gallery() -> None:
    pairs = build([Given("red", "a", "hit", 5, 0.5), Given("red", "b", "miss", 1, 0.9)])
    now = hardness(pairs, np.array([[0.8, 0.3]]), others=np.array([[0.9, 0.8, 0.4, 0.1]]))
    assert now.rank.tolist() == [[2, 5]], "a tie is no worse"
    np.testing.assert_allclose(now.margin, [[-0.5, -0.5]], rtol=1e-6)


def test_scores_of_different_versions_have_no_margin() -> None:
    pairs = build([Given("red", "a", "hit", 5, 0.5, "v0"), Given("red", "b", "miss", 1, 0.9, "v1")])
    assert np.isnan(hardness(pairs).margin).all()


@pytest.mark.parametrize(
    "typed",
    [
        "A man in RED, with a bag.",
        "a  man in red -- with\ta bag",
        " “a man in red” with a bag!\n",
        "Ａ man in red with a bag",
    ],
)
def test_captions_that_differ_in_case_spacing_and_punctuation_are_one(typed: str) -> None:
    assert len(build(marks("a man in red with a bag: a+", f"{typed}: a+")).captions) == 1


# Two pictures


def between(pairs: Pairs, one: str, other: str) -> int:
    found = image_relation(pairs)
    at = pairs.image_ids.index(one), pairs.image_ids.index(other)
    assert found[at] == found[at[::-1]]
    return int(found[at])


def test_hits_of_one_person_show_one_person_and_hits_of_two_show_two() -> None:
    pairs = build(marks("red: a+ b+", "in red: a+ b+ c+", "blue: d+"))
    assert between(pairs, "a", "b") == between(pairs, "b", "c") == POSITIVE, "hits of the person's captions"
    assert between(pairs, "a", "d") == between(pairs, "c", "d") == NEGATIVE
    assert image_relation(pairs).diagonal().tolist() == [UNKNOWN] * 4


def test_a_miss_shows_somebody_else_than_the_hits_and_says_no_more() -> None:
    pairs = build(marks("red: a+ b- c-"))
    assert between(pairs, "a", "b") == between(pairs, "a", "c") == NEGATIVE
    assert between(pairs, "b", "c") == UNKNOWN


def test_a_wrong_person_is_no_picture_of_the_caption_s_person() -> None:
    """The words fit, so the caption learns nothing of it; the pictures show two people all the same."""
    pairs = build(marks("red: a+ b?"))
    assert relation(pairs, "red", "b") == UNKNOWN
    assert pairs.other_person.tolist() == [[False, True]]
    assert between(pairs, "a", "b") == NEGATIVE


def test_what_is_hit_by_most_is_no_other_person() -> None:
    pairs = build(marks("red: a+ b+", "red: b?"))
    assert not pairs.other_person.any()
    assert between(pairs, "a", "b") == POSITIVE
    even = build(marks("red: a+ b+ b-", "red: b?"))
    assert even.other_person.tolist() == [[False, True]], "undecided between hit and miss, but somebody else for one"


def test_a_conflict_says_nothing_of_two_pictures() -> None:
    assert between(build(marks("red: a+ b+ b-")), "a", "b") == UNKNOWN


def test_a_picture_hit_for_two_people_says_nothing() -> None:
    pairs = build(marks("red: a+ b+ c+", "blue: c+ d+ e+"))
    assert len(set(pairs.groups.tolist())) == 2
    assert between(pairs, "a", "c") == between(pairs, "c", "d") == UNKNOWN
    assert between(pairs, "a", "d") == NEGATIVE


def test_a_picture_missed_by_other_words_of_its_person_stays_theirs() -> None:
    pairs = build(marks("red: a+ b+ c-", "in red: a+ b+ c+"))
    assert between(pairs, "a", "c") == POSITIVE


@thoroughly
@given(MARKS)
def test_two_pictures_are_related_as_the_marks_say(given_marks: list[Given]) -> None:
    """The definition in loops."""
    pairs = build(given_marks)
    found = image_relation(pairs)
    count = len(pairs.image_ids)
    people = [{int(g) for g in pairs.groups[pairs.judged[:, n] > 0]} for n in range(count)]
    apart = [
        {int(g) for g in pairs.groups[(pairs.judged[:, n] < 0) | pairs.other_person[:, n]]} - people[n]
        for n in range(count)
    ]
    for a in range(count):
        for b in range(count):
            known = len(people[a]) == len(people[b]) == 1
            if a == b:
                expected = UNKNOWN
            elif known and people[a] == people[b]:
                expected = POSITIVE
            elif (
                known
                or (len(people[a]) == 1 and people[a] & apart[b])
                or (len(people[b]) == 1 and people[b] & apart[a])
            ):
                expected = NEGATIVE
            else:
                expected = UNKNOWN
            assert found[a, b] == expected


def test_no_marks_relate_no_pictures() -> None:
    assert image_relation(build([])).shape == (0, 0)


def test_a_part_of_the_pairs_knows_its_wrong_people() -> None:
    pairs = build(marks("red: a+ b?", "blue: c+ d?"))
    part = pairs.subset(np.array([True, False]))
    assert (part.captions, part.image_ids) == (("blue",), ("c", "d"))
    assert part.other_person.tolist() == [[False, True]]
