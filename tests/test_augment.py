"""Augmentation keeps shape and type, changes pictures, and is decided by the generator alone."""

from __future__ import annotations

import numpy as np
import pytest

from train.augment import augment_person, augment_pixels, drop_words, mask_tokens, occlude

CAPTION = "a man in a red shirt and black trousers with a brown bag"


def test_pixels_are_changed_the_same_way_by_the_same_generator() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 64, 24, 3), dtype=np.uint8)
    once = augment_pixels(pixels, np.random.default_rng(1))
    assert once.shape == pixels.shape
    assert once.dtype == np.uint8
    assert all((a != b).any() for a, b in zip(once, pixels, strict=True))
    assert (once == augment_pixels(pixels, np.random.default_rng(1))).all()
    assert (once != augment_pixels(pixels, np.random.default_rng(2))).any()


def test_dropped_words_leave_the_others_in_order() -> None:
    kept = drop_words(CAPTION, 0.4, np.random.default_rng(0)).split()
    words = iter(CAPTION.split())
    assert 0 < len(kept) < len(CAPTION.split())
    assert all(word in words for word in kept)


def test_nothing_is_dropped_at_zero_and_never_everything() -> None:
    assert drop_words(CAPTION, 0.0, np.random.default_rng(0)) == CAPTION
    assert drop_words("man", 1.0, np.random.default_rng(0)) == "man"


def test_a_person_is_mirrored_moved_and_partly_hidden() -> None:
    pixels = np.random.default_rng(0).integers(1, 255, (96, 32, 3), dtype=np.uint8)
    fill = (0.5, 0.25, 1.0)
    seen = [augment_person(pixels, np.random.default_rng(seed), fill=fill) for seed in range(80)]
    assert all(each.shape == pixels.shape and each.dtype == np.uint8 for each in seen)
    hidden = [(each == np.round(255 * np.array(fill))).all(axis=2).mean() for each in seen]
    boxes = [share for share in hidden if share > 0.01]
    assert 25 <= len(boxes) <= 55
    assert min(boxes) >= 0.015
    assert max(boxes) <= 0.41
    whole = [each for each, share in zip(seen, hidden, strict=True) if share < 0.01]
    places = {(way, dy, dx) for each in whole for way, dy, dx in _found(each, pixels)}
    assert {way for way, _, _ in places} == {1, -1}
    assert {dy for _, dy, _ in places} == {dx for _, _, dx in places} == {-2, -1, 0, 1, 2}  # 10 of 384, scaled
    assert np.array_equal(seen[7], augment_person(pixels, np.random.default_rng(7), fill=fill))


def _found(each: np.ndarray, pixels: np.ndarray) -> list[tuple[int, int, int]]:
    """By which mirroring and shift `each` came from `pixels`."""
    inner = (slice(4, 90), slice(4, 28))
    return [
        (way, dy, dx)
        for way in (1, -1)
        for dy in range(-3, 4)
        for dx in range(-3, 4)
        if np.array_equal(each[inner], np.roll(pixels[:, ::way], (dy, dx), axis=(0, 1))[inner])
    ]


def test_masked_tokens_are_what_bert_makes_of_them() -> None:
    tokens = np.array([998, *range(100, 180), 999, 0, 0], np.int64)
    words = np.arange(200, 300)
    rows = [mask_tokens(tokens, 0.15, np.random.default_rng(seed), mask=997, words=words) for seed in range(300)]
    for row in rows:
        assert (row[0], row[81], row[82:].tolist()) == (998, 999, [0, 0])
    inner = np.stack(rows)[:, 1:81]
    assert np.mean(inner == 997) == pytest.approx(0.12, abs=0.01)
    assert np.mean((inner >= 200) & (inner < 300)) == pytest.approx(0.015, abs=0.005)
    assert np.mean(inner == tokens[1:81]) == pytest.approx(0.865, abs=0.01)
    assert np.array_equal(mask_tokens(tokens, 0.0, np.random.default_rng(0), mask=997, words=words), tokens)


# Strips of other pictures


def flat(count: int, value: int) -> np.ndarray:
    return np.full((count, 48, 24, 3), value, np.uint8)


def test_a_strip_of_another_picture_covers_one_edge() -> None:
    covered = occlude(flat(300, 0), flat(3, 255), 1.0, np.random.default_rng(0)) == 255
    sides = {"bottom": 0, "left": 0, "right": 0}
    for picture in covered.all(axis=3):
        rows, columns = picture.all(axis=1), picture.all(axis=0)
        assert picture.any()
        if rows.any():
            side, strip, size = "bottom", int(rows.sum()), 48
            assert rows[-strip:].all()
        else:
            side = "left" if columns[0] else "right"
            strip, size = int(columns.sum()), 24
            assert columns[:strip].all() if side == "left" else columns[-strip:].all()
        assert size // 8 <= strip < size // 3
        assert picture.sum() == strip * (72 - size), "one strip and nothing else"
        sides[side] += 1
    assert min(sides.values()) > 70


def test_a_strip_is_what_the_donor_has_there() -> None:
    donor = np.random.default_rng(1).integers(1, 256, (1, 48, 24, 3), dtype=np.uint8)
    for picture in occlude(flat(20, 0), donor, 1.0, np.random.default_rng(0)):
        there = picture.any(axis=2)
        assert np.array_equal(picture[there], donor[0][there])


def test_only_a_share_of_the_pictures_is_covered() -> None:
    covered = occlude(flat(400, 0), flat(3, 255), 0.3, np.random.default_rng(0)).any(axis=(1, 2, 3))
    assert covered.mean() == pytest.approx(0.3, abs=0.06)
    assert not occlude(flat(9, 0), flat(3, 255), 0.0, np.random.default_rng(0)).any()


def test_covering_leaves_the_given_pictures_alone_and_repeats_itself() -> None:
    pixels, donors = flat(9, 0), flat(3, 255)
    once, again, other = (occlude(pixels, donors, 1.0, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert not pixels.any()
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    itself = occlude(pixels, pixels, 1.0, np.random.default_rng(0))
    assert np.array_equal(itself, pixels), "pictures may be their own donors"
