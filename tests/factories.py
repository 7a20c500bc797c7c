"""Small values that many tests make: pictures, embeddings, searches."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from store import Marks, NewImage, Search, Shown

Embed = Callable[[Sequence[bytes]], np.ndarray]


def picture_file(colour: str | tuple[int, int, int], *, size: tuple[int, int] = (48, 128), form: str = "PNG") -> bytes:
    """The encoded file of a picture in one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, form)
    return file.getvalue()


def picture(number: int, **facts: Any) -> NewImage:
    """A picture of the gallery with a file that nothing decodes."""
    known: dict[str, Any] = {"uri": f"{number:04d}.jpg", "width": 128, "height": 384, "source": "own"}
    return NewImage(data=f"picture {number}".encode(), **(known | facts))


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows (B, E) of length 1 as float32."""
    unit: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def embedder(dim: int) -> Embed:
    """An encoder that makes a unit row (dim,) from each file's bytes alone."""

    def embed(data: Sequence[bytes]) -> np.ndarray:
        seeds = [int.from_bytes(hashlib.sha256(item).digest()[:8]) for item in data]
        return unit_rows(np.stack([np.random.default_rng(seed).normal(size=dim) for seed in seeds]))

    return embed


def record(marks: Marks, image_ids: Sequence[str], caption: str = "a man in red", **more: Any) -> str:
    """A recorded search that showed these pictures; its query id."""
    search = Search(**({"user": "ada", "caption": caption, "version": "mini-v0", "backbone": "mini"} | more))
    return marks.record_search(search, [Shown(image_id, n, 1 / n) for n, image_id in enumerate(image_ids, 1)])


def until(reached: Callable[[], bool], *, seconds: float = 30) -> None:
    """Wait until something is so; fails after some seconds."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)
