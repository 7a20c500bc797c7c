"""The look of a gallery put on other pictures: its light, tint, contrast, blur and noise, learnt without a label.

Replayed pictures that wear the look of the gallery keep their captions, so that what the model knew of clean pictures
is learnt anew for pictures such as users search. The idea is that of Fourier domain adaptation (Yang and Soatto,
arXiv 2004.05498): the amplitudes of a spectrum tell the look, its phases what is seen. Pure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from train.captioned_images import CaptionedPictures

RINGS = 12
"""Bands of frequency from 0 to half a cycle per pixel; band 0 holds the mean alone."""

FINE = 5
"""From this band on, power that a picture lacks is noise of the camera; below, contrast."""

MOST = 4.0
"""Contrast is raised at most so many times, which nearly empty bands would exceed."""

SEED = 17

Pixels = NDArray[np.uint8]


class Look:
    """What pictures uint8 (N, H, W, 3) look like: the mean of each channel, and the power in each band, of each."""

    def __init__(self, pixels: Pixels) -> None:
        _, height, width, _ = pixels.shape
        self.size = height, width
        radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
        self.band = np.minimum((radius / 0.5 * RINGS).astype(int) + 1, RINGS)
        self.band[0, 0] = 0
        self.means = pixels.mean(axis=(1, 2))
        self.powers = np.concatenate([self._power(_spectrum(part)) for part in _parts(pixels)])

    def put_on(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """These pictures (M, H, W, 3), each with a look between those of two pictures drawn at random. One alone would
        lend its person's colours, too."""
        return np.concatenate([self._put_on(part, rng) for part in _parts(pixels)])

    def _put_on(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        pair = rng.integers(0, len(self.powers), (2, len(pixels)))
        wanted = np.sqrt(self.powers[pair[0]] * self.powers[pair[1]])
        spectrum = _spectrum(pixels)
        own = self._power(spectrum)
        fine = np.arange(RINGS + 1) >= FINE
        gain = np.minimum(np.sqrt(wanted / own), np.where(fine, 1.0, MOST))
        grain = np.sqrt(np.maximum(wanted - own, 0)) * fine
        noise = _spectrum(rng.standard_normal(pixels.shape, dtype=np.float32)) / np.sqrt(np.prod(self.size))
        spectrum = spectrum * gain[:, self.band][..., None] + noise * grain[:, self.band][..., None]
        spectrum[:, 0, 0] = self.means[pair].mean(axis=0) * np.prod(self.size)
        return np.fft.irfft2(spectrum, s=self.size, axes=(1, 2)).clip(0, 255).astype(np.uint8)

    def _power(self, spectrum: NDArray[np.complexfloating]) -> NDArray[np.float64]:
        """Mean power in each band over all channels (N, RINGS + 1), never 0."""
        power = (np.abs(spectrum) ** 2).mean(axis=-1).reshape(len(spectrum), -1)
        band, number = self.band.ravel(), RINGS + 1
        total = np.stack([np.bincount(band, weights=row, minlength=number) for row in power])
        return total / np.maximum(np.bincount(band, minlength=number), 1) + 1e-3


def with_look(known: CaptionedPictures, gallery: Pixels, share: float) -> CaptionedPictures:
    """`known` and some of it once more in the look of `gallery` (N, H, W, 3), which are then a `share` of all, at most
    half."""
    count = round(len(known.pids) * share / (1 - share))
    worn = Look(gallery).put_on(known.pixels[:count], np.random.default_rng(SEED))
    return CaptionedPictures(
        pixels=np.concatenate([known.pixels, worn]),
        captions=known.captions + known.captions[:count],
        pids=np.concatenate([known.pids, known.pids[:count]]),
    )


def _spectrum(pixels: NDArray[np.generic]) -> NDArray[np.complexfloating]:
    return np.fft.rfft2(pixels.astype(np.float32), axes=(1, 2))


def _parts(pixels: Pixels, size: int = 64) -> list[Pixels]:
    return [pixels[start : start + size] for start in range(0, len(pixels), size)]
