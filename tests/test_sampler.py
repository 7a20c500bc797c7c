"""Batches of the learning loop: whose turn it is, what is known of each pair, and what is replayed beside the marks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.model import UPPerson
from core.petl import PetlConfig
from tests.coloured import Mark, known_before, people
from tests.small_clip import small_backbone
from train.captioned_images import CaptionedPictures
from train.embed import embed_captions, embed_pixels
from train.finetuning.adaptation import replayed
from train.finetuning.config import Sampling
from train.finetuning.pairs import NEGATIVE, POSITIVE, SAFE, UNKNOWN, Pairs, build, image_relation
from train.finetuning.sampler import Replay, Sampler, join_tracks

PLAIN = Sampling(queries=8, hits=4, misses=3, replay=10, occluded=0.0, hidden_words=0.0, negative_only=0)
HERE = people()
PAIRS = build(HERE.marks())
KNOWN = known_before()


@pytest.fixture
def model() -> UPPerson:
    return UPPerson(small_backbone(), PetlConfig(prefix_length=2, lora_rank=4, adapter_reduction=4))


@pytest.fixture
def replay(model: UPPerson) -> Replay:
    return replayed(model, KNOWN)


def sampler(model: UPPerson, replay: Replay | None, config: Sampling = PLAIN, pairs: Pairs = PAIRS) -> Sampler:
    return Sampler(model, pairs, HERE.pixels, replay, config, np.random.default_rng(0))


def without_hits() -> Pairs:
    """The pairs of all captions, of which the first four have no hit."""
    return build(
        replace(mark, verdict="miss") if mark.caption in HERE.captions[:4] and mark.verdict == "hit" else mark
        for mark in HERE.marks()
    )


def test_every_caption_with_a_hit_has_its_turn_before_any_comes_again(model: UPPerson) -> None:
    dealer = sampler(model, None)
    rounds = [dealer._captions() for _ in range(4)]
    assert [len(r) for r in rounds] == [8] * 4
    assert sorted(np.concatenate(rounds[:2])) == list(range(16))
    assert sorted(np.concatenate(rounds[2:])) == list(range(16))


def test_a_batch_larger_than_the_marks_takes_each_caption_once(model: UPPerson) -> None:
    dealer = sampler(model, None, replace(PLAIN, queries=500))
    for _ in range(3):
        assert sorted(dealer._captions()) == list(range(16))


def test_no_caption_is_twice_in_a_batch_and_none_is_passed_over(model: UPPerson) -> None:
    dealer = sampler(model, None, replace(PLAIN, queries=7))
    rounds = [dealer._captions().tolist() for _ in range(16)]
    assert all(len(set(r)) == len(r) == 7 for r in rounds)
    assert set(Counter(caption for r in rounds for caption in r).values()) == {7}, "16 batches of 7 are 7 passes"


def test_captions_learnt_before_take_part_less_often(model: UPPerson) -> None:
    pairs = build(HERE.marks(), learnt={caption.lower() for caption in HERE.captions[:8]})
    assert pairs.fresh.sum() == 8
    counts: Counter[bool] = Counter()
    dealer = sampler(model, None, replace(PLAIN, relearn=0.25), pairs)
    for _ in range(80):
        counts.update(pairs.fresh[dealer._captions()].tolist())
    assert counts[False] / counts[True] == pytest.approx(0.25, abs=0.08)
    never = sampler(model, None, replace(PLAIN, relearn=0.0), pairs)
    assert all(pairs.fresh[never._captions()].all() for _ in range(5))


def test_where_nothing_is_fresh_all_captions_take_part(model: UPPerson) -> None:
    pairs = build(HERE.marks(), learnt={caption.lower() for caption in HERE.captions})
    dealer = sampler(model, None, replace(PLAIN, relearn=0.0, queries=16), pairs)
    assert sorted(dealer._captions()) == list(range(16))


def test_a_batch_says_what_is_known_of_each_pair(model: UPPerson, replay: Replay) -> None:
    batch = sampler(model, replay).next()
    queries, pictures = batch.relation.shape
    assert (len(batch.tokens), len(batch.pictures)) == (queries, pictures)
    assert queries == 8 + 10
    marks, back = batch.relation[:8, :-10], batch.relation[8:, -10:]
    assert torch.equal(back, torch.where(torch.eye(10).bool(), POSITIVE, NEGATIVE).to(torch.int8))
    assert (batch.relation[:8, -10:] == NEGATIVE).all()
    assert (batch.relation[8:, :-10] == NEGATIVE).all()
    assert (marks == POSITIVE).any(dim=1).all()  # every caption has its hit
    assert marks.unique().tolist() == [SAFE, NEGATIVE, POSITIVE]
    assert (batch.weight == 1).all()
    assert batch.pushed.shape == batch.relation.shape
    assert not batch.pushed.any()


def test_replayed_pairs_of_one_person_match(model: UPPerson) -> None:
    known = replace(KNOWN, pids=np.arange(30) // 3)
    given = replayed(model, known)
    back = sampler(model, given, replace(PLAIN, replay=30)).next().relation[8:, -30:]
    assert ((back == POSITIVE).sum(dim=1) == 3).all()


@pytest.mark.parametrize(("hits", "misses"), [(1, 0), (2, 3), (9, 9)])
def test_a_caption_brings_its_hits_and_misses_and_no_more_than_asked(model: UPPerson, hits: int, misses: int) -> None:
    config = replace(PLAIN, queries=1, hits=hits, misses=misses)
    dealer = sampler(model, None, config)
    for _ in range(20):
        relation = dealer.next().relation[0]
        assert int((relation == POSITIVE).sum()) == min(hits, 2)
        assert int((relation == NEGATIVE).sum()) == min(misses, 10)
        assert len(relation) == min(hits, 2) + min(misses, 10)


def test_a_batch_relates_its_marked_pictures_to_each_other(model: UPPerson, replay: Replay) -> None:
    batch = sampler(model, replay).next()
    marked = batch.relation.shape[1] - 10
    assert batch.people.shape == (marked, marked)
    assert {POSITIVE, NEGATIVE} <= set(batch.people.unique().tolist())
    rows = [
        next(n for n, image in enumerate(PAIRS.image_ids) if np.array_equal(HERE.pixels[image], pixels))
        for pixels in _pixels_of_one_batch(model, marked)
    ]
    assert np.array_equal(batch.people.numpy(), image_relation(PAIRS)[np.ix_(rows, rows)])


def test_pictures_of_one_track_show_one_person_unless_marks_say_otherwise() -> None:
    relation = np.array([[0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], np.int8)
    joined = join_tracks(relation, ["a", "a", "a", ""])
    assert joined.tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert np.array_equal(join_tracks(relation, [""] * 4), relation), "no track is not the same track"


def test_a_batch_joins_its_marked_pictures_by_tracks(model: UPPerson, replay: Replay) -> None:
    tracks = dict.fromkeys(PAIRS.image_ids, "1")
    dealer = Sampler(model, PAIRS, HERE.pixels, replay, PLAIN, np.random.default_rng(0), tracks=tracks)
    apart = image_relation(PAIRS) == NEGATIVE
    assert (dealer.people[~apart & ~np.eye(len(apart), dtype=bool)] == POSITIVE).all()
    assert (dealer.people[apart] == UNKNOWN).all()


def _pixels_of_one_batch(model: UPPerson, marked: int) -> NDArray[np.uint8]:
    """The pictures that the same batch takes, before augmentation."""
    dealer = sampler(model, None)
    return np.asarray(dealer.pictures[dealer._images(dealer._captions())][:marked])


def test_a_mark_that_somebody_contradicts_counts_less(model: UPPerson, replay: Replay) -> None:
    doubt = [Mark(HERE.captions[0], "0-0", verdict) for verdict in ("hit", "hit", "miss")]
    doubt += [Mark(HERE.captions[1], "9-0", verdict) for verdict in ("miss", "miss", "hit")]
    pairs = build([*doubt, Mark(HERE.captions[1], "1-0", "hit"), Mark(HERE.captions[2], "3-0", "miss")])
    batch = sampler(model, replay, replace(PLAIN, negative_only=1), pairs).next()
    assert len(batch.relation) == 2 + 1 + 10
    hits, misses = batch.relation == POSITIVE, batch.relation == NEGATIVE
    assert sorted(batch.weight[:2][hits[:2]].tolist()) == pytest.approx([1 / 3, 1])
    assert sorted(batch.weight[:2, :-10][misses[:2, :-10]].tolist()) == pytest.approx([1 / 3])
    assert (batch.weight[3:] == 1).all(), "what is replayed is sure"
    assert torch.equal(batch.weight > 0, batch.relation != UNKNOWN)
    assert batch.pushed[2].max() == 1


def test_safe_negatives_can_be_left_unknown(model: UPPerson) -> None:
    assert (PAIRS.relation == SAFE).any()
    bold, shy = sampler(model, None), sampler(model, None, replace(PLAIN, safe_negatives=False))
    assert (bold.relation == SAFE).sum() == (PAIRS.relation == SAFE).sum()
    assert np.array_equal(shy.relation == UNKNOWN, (PAIRS.relation == SAFE) | (PAIRS.relation == UNKNOWN))


# Captions with misses alone


def misses_of(model: UPPerson, pairs: Pairs, captions: list[int]) -> list[float]:
    """The mean score of the misses of each of these captions."""
    images = embed_pixels(model, np.stack([HERE.pixels[image] for image in pairs.image_ids]))
    scores = embed_captions(model, [pairs.captions[caption] for caption in captions]) @ images.T
    return [float(row[pairs.judged[caption] < 0].mean()) for row, caption in zip(scores, captions, strict=True)]


def test_captions_without_hits_have_their_turn_too(model: UPPerson, replay: Replay) -> None:
    pairs = without_hits()
    negative_only = np.flatnonzero(~(pairs.judged > 0).any(axis=1))
    assert len(negative_only) == 4
    batch = sampler(model, replay, replace(PLAIN, negative_only=3), pairs).next()
    assert len(batch.relation) == 8 + 3 + 10
    rows = (batch.pushed > 0).any(dim=1)
    assert rows.nonzero().flatten().tolist() == [8, 9, 10]
    assert not batch.pushed[:, -10:].any(), "replayed pictures are none of their misses"
    assert (batch.relation[batch.pushed > 0] == NEGATIVE).all()
    assert batch.pushed.unique().tolist() == [0, 1]
    assert set(batch.relation[8:11, :-10].unique().tolist()) == {NEGATIVE, UNKNOWN}, "nothing is safe of them"
    assert torch.equal(batch.threshold != 0, rows)
    before = misses_of(model, pairs, negative_only.tolist())
    assert {round(float(value), 4) for value in batch.threshold[rows]} < {round(value, 4) for value in before}


def test_the_threshold_is_the_models_and_not_of_who_showed_the_pictures(model: UPPerson) -> None:
    pairs, config = without_hits(), replace(PLAIN, negative_only=4)
    other = replace(pairs, scores=pairs.scores + 0.5)
    one, two = (sampler(model, None, config, p).next() for p in (pairs, other))
    assert torch.equal(one.threshold, two.threshold)
    rows = embed_pixels(model, np.stack(list(HERE.pixels.values())))
    given = dict(zip(HERE.pixels, rows, strict=True))
    frozen = Sampler(model, pairs, given, None, config, np.random.default_rng(0), frozen=True).next()
    torch.testing.assert_close(frozen.threshold, one.threshold)


# What is replayed, and how pictures are changed


def test_a_batch_says_where_the_teacher_puts_its_replayed_pairs(model: UPPerson) -> None:
    numbers = np.arange(len(KNOWN.pids), dtype=np.float32)[:, None]
    batch = sampler(model, Replay(KNOWN, numbers, numbers + 1000)).next()
    assert batch.teacher is not None
    chosen = batch.teacher[0][:, 0].long()
    assert torch.equal(batch.teacher[1], batch.teacher[0] + 1000)
    texts = model.backbone.tokenize([KNOWN.captions[index] for index in chosen])
    assert torch.equal(batch.tokens[-len(chosen) :], texts)
    assert sampler(model, None).next().teacher is None


def test_nothing_is_replayed_where_none_is_asked_for(model: UPPerson, replay: Replay) -> None:
    dealer = sampler(model, replay, replace(PLAIN, replay=0))
    assert dealer.replay is None
    assert dealer.next().teacher is None
    few = sampler(model, replay, replace(PLAIN, replay=500)).next()
    assert len(few.relation) == 8 + 30, "no more than there are"


def flat_pairs(count: int, value: int) -> CaptionedPictures:
    pixels = np.full((count, *KNOWN.pixels.shape[1:]), value, np.uint8)
    return CaptionedPictures(pixels=pixels, captions=KNOWN.captions[:count], pids=np.arange(count))


def test_replayed_pictures_keep_their_captions_and_their_teacher(model: UPPerson) -> None:
    numbers = np.arange(10, dtype=np.float32)[:, None]
    batch = sampler(model, Replay(flat_pairs(10, 128), numbers, numbers), PLAIN).next()
    assert batch.teacher is not None
    chosen = batch.teacher[0][:, 0].long()
    assert torch.equal(batch.tokens[-10:], model.backbone.tokenize([KNOWN.captions[index] for index in chosen]))


def test_marked_pictures_are_covered_by_strips_of_each_other(model: UPPerson) -> None:
    flat = {image: np.full_like(pixels, 255 * (n % 2)) for n, (image, pixels) in enumerate(HERE.pixels.items())}
    grey = Replay(flat_pairs(10, 128), np.zeros((10, 1), np.float32), np.zeros((10, 1), np.float32))

    def mixed(share: float) -> list[bool]:
        """Of each picture, whether black and white are both in it."""
        config = replace(PLAIN, occluded=share)
        batch = Sampler(model, PAIRS, flat, grey, config, np.random.default_rng(0)).next()
        return [float(picture.max()) > 1.0 and float(picture.min()) < -1.0 for picture in batch.pictures]

    assert not any(mixed(0.0))
    covered = mixed(1.0)
    assert sum(covered[:-10]) > len(covered[:-10]) / 4
    assert not any(covered[-10:]), "replayed ones are not"


def test_words_are_left_out_of_captions(model: UPPerson) -> None:
    whole, fewer = (sampler(model, None, replace(PLAIN, hidden_words=share)).next() for share in (0.0, 0.5))
    assert int((fewer.tokens != 0).sum()) < int((whole.tokens != 0).sum())


def test_with_a_frozen_image_tower_rows_come_instead_of_pixels(model: UPPerson, replay: Replay) -> None:
    rows = embed_pixels(model, np.stack(list(HERE.pixels.values())))
    given = dict(zip(HERE.pixels, rows, strict=True))
    config = replace(PLAIN, occluded=1.0)
    batch = Sampler(model, PAIRS, given, replay, config, np.random.default_rng(0), frozen=True).next()
    assert batch.pictures.shape == (batch.relation.shape[1], rows.shape[1])
    assert batch.teacher is not None
    assert torch.equal(batch.pictures[-10:], batch.teacher[1]), "replayed rows are the teacher's"
    assert {row.tobytes() for row in batch.pictures[:-10].numpy()} <= {row.tobytes() for row in rows}
