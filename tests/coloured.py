"""A world of coloured pictures that even a small CLIP with random weights can learn to distinguish."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from train.captioned_images import CaptionedPictures

SIZE = (48, 16)
COLOURS = {"red": (200, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 210), "yellow": (220, 200, 50)}


@dataclass(frozen=True, slots=True)
class Mark:
    """What `train.finetuning.pairs` needs of a mark."""

    caption: str
    image_id: str
    verdict: str
    rank: int = 1
    score: float = 0.5
    version: str = "v0"
    user: str = ""


@dataclass(frozen=True, slots=True)
class People:
    """Sixteen people, distinguished by the colours of coat and trousers: captions and pixels by person and picture."""

    captions: tuple[str, ...]
    pixels: dict[str, NDArray[np.uint8]]

    def marks(self, *, shown: int = 5, seed: int = 0) -> list[Mark]:
        """Everybody's captions marked truthfully: both pictures of the person, and `shown` others at random."""
        rng = np.random.default_rng(seed)
        found = []
        for person, caption in enumerate(self.captions):
            others = rng.permutation([p for p in range(len(self.captions)) if p != person])[:shown]
            for rank, other in enumerate([person, *others.tolist()], start=1):
                verdict = "hit" if other == person else "miss"
                score = float(rng.normal(0.3 if other == person else 0.2, 0.1))
                found += [Mark(caption, f"{other}-{shot}", verdict, rank, score) for shot in range(2)]
        return found


def people() -> People:
    captions, pixels = [], {}
    rng = np.random.default_rng(1)
    for person, (coat, trousers) in enumerate(product(COLOURS, COLOURS)):
        captions.append(f"somebody with a {coat} coat and {trousers} trousers")
        for shot in range(2):
            picture = np.empty((*SIZE, 3), np.float64)
            picture[:24], picture[24:] = COLOURS[coat], COLOURS[trousers]
            noisy = picture * rng.uniform(0.9, 1.1) + rng.normal(0, 12, picture.shape)
            pixels[f"{person}-{shot}"] = np.clip(noisy, 0, 255).astype(np.uint8)
    return People(tuple(captions), pixels)


def known_before(count: int = 30) -> CaptionedPictures:
    """`count` pictures of noise with captions of their own: something to replay, or to fall on."""
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (count, *SIZE, 3), dtype=np.uint8)
    return CaptionedPictures(
        pixels=pixels, captions=tuple(f"noise number {n}" for n in range(count)), pids=np.arange(count)
    )
