"""Augmentation keeps shape and type, changes pictures, and is decided by the generator alone."""

from __future__ import annotations

import numpy as np

from train.augment import augment_pixels, drop_words

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
