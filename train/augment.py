"""Augmentation of pictures and captions: pure functions of arrays, texts and a generator."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def augment_pixels(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Shift by up to 4 pixels each way (edges repeated), erase a small box in every third picture, and change the
    light a little, as much as it differs between photographs of one place: darkness, tint, blur and noise of other
    places are for the marks to teach. uint8 (B, H, W, 3) in and out; H and W at least 32 and 16."""
    count, height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    out = np.empty(pixels.shape, np.float32)
    for index, (dy, dx) in enumerate(rng.integers(0, 9, (count, 2))):
        out[index] = padded[index, dy : dy + height, dx : dx + width]
        if rng.random() < 0.33:
            top, left = int(rng.integers(0, height - 16)), int(rng.integers(0, width - 10))
            out[index, top : top + int(rng.integers(6, 16)), left : left + int(rng.integers(4, 10))] = 118
    out *= rng.uniform(0.92, 1.08, (count, 1, 1, 1)).astype(np.float32)
    return np.clip(out, 0, 255).astype(np.uint8)


def drop_words(caption: str, share: float, rng: np.random.Generator) -> str:
    """The caption without a random `share` of its words; never empty."""
    words = caption.split()
    kept = [word for word, chance in zip(words, rng.random(len(words)), strict=True) if chance >= share]
    return " ".join(kept or words)
