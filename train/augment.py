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


def occlude(
    pixels: NDArray[np.uint8], donors: NDArray[np.uint8], share: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Cover an edge of a random `share` of the pictures with the same strip of a random donor.

    A strip is an eighth to a third of the height (at the bottom) or of the width (at either side), as what stands
    between a camera and a person covers them. uint8 (B, H, W, 3) and donors (D, H, W, 3) in, a copy out.
    """
    out = pixels.copy()
    _, height, width, _ = pixels.shape
    for index in np.flatnonzero(rng.random(len(pixels)) < share):
        donor, side = donors[rng.integers(len(donors))], rng.integers(3)
        strip = int(rng.integers(*((height // 8, height // 3) if side == 0 else (width // 8, width // 3))))
        where = (
            (slice(height - strip, height), slice(None)),
            (slice(None), slice(0, strip)),
            (slice(None), slice(width - strip, width)),
        )[side]
        out[index][where] = donor[where]
    return out


def drop_words(caption: str, share: float, rng: np.random.Generator) -> str:
    """Return the caption without a random `share` of its words; never empty."""
    words = caption.split()
    kept = [word for word, chance in zip(words, rng.random(len(words)), strict=True) if chance >= share]
    return " ".join(kept or words)


def augment_person(
    pixels: NDArray[np.uint8], rng: np.random.Generator, *, fill: tuple[float, float, float]
) -> NDArray[np.uint8]:
    """Return one picture (H, W, 3) as the paper's recipe changes it: mirrored or not, moved by up to 10 pixels each
    way on black, and in half of the cases a box of 2 to 40 % of it filled with `fill` (RGB in [0, 1]).

    Ten pixels are meant for a height of 384; smaller pictures are moved in proportion.
    """
    height, width, _ = pixels.shape
    pad = max(1, round(10 * height / 384))
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    top, left = rng.integers(0, 2 * pad + 1, 2)
    out = np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)))[top : top + height, left : left + width].copy()
    if rng.random() < 0.5:
        _erase(out, rng, fill)
    return out


def _erase(pixels: NDArray[np.uint8], rng: np.random.Generator, fill: tuple[float, float, float]) -> None:
    """Random erasing (Zhong et al., arXiv 1708.04896): 2 to 40 % of the area, sides 0.3 to 3.3 to each other."""
    height, width, _ = pixels.shape
    for _ in range(10):  # a box that does not fit is drawn again
        area, ratio = rng.uniform(0.02, 0.4) * height * width, np.exp(rng.uniform(np.log(0.3), np.log(3.3)))
        tall, wide = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < tall < height and 0 < wide < width:
            top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
            pixels[top : top + tall, left : left + wide] = np.round(255 * np.array(fill))
            return


def mask_tokens(
    tokens: NDArray[np.int64],
    share: float,
    rng: np.random.Generator,
    *,
    mask: int,
    words: NDArray[np.int64],
    start: int = 1,
    end: int | None = None,
) -> NDArray[np.int64]:
    """Return a caption's tokens (T,) with a `share` of them hidden as BERT does (arXiv 1810.04805): of these 80 %
    become `mask`, 10 % any of `words`, 10 % stay. The first `start` tokens stay, and so do the one that ends the text,
    with the id `end` (None: the largest id), and what follows.
    """  # fmt: skip
    last = int((tokens == (tokens.max() if end is None else end)).argmax())
    chance, kind = rng.random(len(tokens)), rng.random(len(tokens))
    other = words[rng.integers(0, len(words), len(tokens))]
    place = np.arange(len(tokens))
    hidden = (chance < share) & (place >= start) & (place < last)
    return np.where(hidden & (kind < 0.8), mask, np.where(hidden & (kind >= 0.9), other, tokens))
