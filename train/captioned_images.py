"""Captioned pictures in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionedPictures:
    """Pictures at a model's size: pixels uint8 (N, H, W, 3), one caption and one pid for each."""

    pixels: NDArray[np.uint8]
    captions: tuple[str, ...]
    pids: NDArray[np.int64]

    def part(self, which: slice) -> CaptionedPictures:
        """Those of a slice, as plain captioned pictures."""
        return CaptionedPictures(pixels=self.pixels[which], captions=self.captions[which], pids=self.pids[which])
