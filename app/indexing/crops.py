"""What speaks against a picture being a crop of one person. Such pictures are taken, and counted in the report."""

from __future__ import annotations

import numpy as np
from PIL import Image

_TALLEST = 6
_LOWEST = 40  # pixels: below, a head is two or three of them
_PATCH = 64
_LEAST_ALIKE = 0.3  # correlation of neighbouring pixels: 0 in noise, rarely below 0.8 in photographs


def doubts(picture: Image.Image) -> list[tuple[str, str]]:
    """Why an RGB picture looks like no person crop, in words that follow "1" and in words that follow more."""
    width, height = picture.size
    found = []
    if width > height:
        found.append(
            ("picture is wider than tall, and a person crop is not: cut the people out first",
             "pictures are wider than tall, and person crops are not: cut the people out first")
        )  # fmt: skip
    elif height > _TALLEST * width:
        found.append(
            (f"picture is more than {_TALLEST} times as tall as wide: check that it shows a whole person",
             f"pictures are more than {_TALLEST} times as tall as wide: check that they show whole people")
        )  # fmt: skip
    if height < _LOWEST:
        found.append(
            (f"picture is less than {_LOWEST} pixels tall: little of a person can be seen in it",
             f"pictures are less than {_LOWEST} pixels tall: little of a person can be seen in them")
        )  # fmt: skip
    if _is_noise(picture):
        found.append(
            ("picture looks like noise: check where it comes from",
             "pictures look like noise: check where they come from")
        )  # fmt: skip
    return found


def _is_noise(picture: Image.Image) -> bool:
    """Whether neighbouring pixels in the middle have nothing to do with each other."""
    left, top = max(0, (picture.width - _PATCH) // 2), max(0, (picture.height - _PATCH) // 2)
    middle = picture.crop((left, top, min(picture.width, left + _PATCH), min(picture.height, top + _PATCH)))
    grey = np.asarray(middle.convert("L"), np.float64)
    return max(_alike(grey[:, :-1], grey[:, 1:]), _alike(grey[:-1], grey[1:])) < _LEAST_ALIKE


def _alike(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of two arrays of the same shape; 1 where one of them is all the same."""
    if min(one.std(), other.std()) < 1:
        return 1.0
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
