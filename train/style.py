"""The style of a gallery: light, tint, contrast, blur and noise, measured without labels and applied to other pictures.

Pictures in the gallery's style keep their captions, so a model can learn from labelled pictures as users see theirs.
The method follows Fourier domain adaptation (FDA, Yang and Soatto, arXiv 2004.05498): the amplitudes of a spectrum
carry the style, the phases carry the content. Pure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RINGS = 12
"""Frequency bands from 0 to half a cycle per pixel; band 0 holds the mean alone."""

FINE = 5
"""From this band on, power that a picture lacks is added as camera noise; below it, contrast is raised."""

MAX_GAIN = 4.0
"""Upper bound of the contrast gain. Nearly empty bands would exceed it."""

Pixels = NDArray[np.uint8]


class Style:
    """Mean colour and power per frequency band of each picture in uint8 (N, H, W, 3)."""

    def __init__(self, pixels: Pixels) -> None:
        _, height, width, _ = pixels.shape
        self.size = height, width
        radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
        self.band = np.minimum((radius / 0.5 * RINGS).astype(int) + 1, RINGS)
        self.band[0, 0] = 0
        self.means = pixels.mean(axis=(1, 2))
        self.powers = np.concatenate([self._power(_spectrum(part)) for part in _parts(pixels)])

    def apply(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        """Return pictures (M, H, W, 3), each in a style between those of two random pictures.

        A single picture would also pass on the colours of its person.
        """
        return np.concatenate([self._apply(part, rng) for part in _parts(pixels)])

    def _apply(self, pixels: Pixels, rng: np.random.Generator) -> Pixels:
        pair = rng.integers(0, len(self.powers), (2, len(pixels)))
        wanted = np.sqrt(self.powers[pair[0]] * self.powers[pair[1]])
        spectrum = _spectrum(pixels)
        own = self._power(spectrum)
        fine = np.arange(RINGS + 1) >= FINE
        gain = np.minimum(np.sqrt(wanted / own), np.where(fine, 1.0, MAX_GAIN))
        grain = np.sqrt(np.maximum(wanted - own, 0)) * fine
        noise = _spectrum(rng.standard_normal(pixels.shape, dtype=np.float32)) / np.sqrt(np.prod(self.size))
        spectrum = spectrum * gain[:, self.band][..., None] + noise * grain[:, self.band][..., None]
        spectrum[:, 0, 0] = self.means[pair].mean(axis=0) * np.prod(self.size)
        return np.fft.irfft2(spectrum, s=self.size, axes=(1, 2)).clip(0, 255).astype(np.uint8)

    def _power(self, spectrum: NDArray[np.complexfloating]) -> NDArray[np.float64]:
        """Mean power per band over all channels (N, RINGS + 1), always above 0."""
        power = (np.abs(spectrum) ** 2).mean(axis=-1).reshape(len(spectrum), -1)
        band, number = self.band.ravel(), RINGS + 1
        total = np.stack([np.bincount(band, weights=row, minlength=number) for row in power])
        return total / np.maximum(np.bincount(band, minlength=number), 1) + 1e-3


def _spectrum(pixels: NDArray[np.generic]) -> NDArray[np.complexfloating]:
    return np.fft.rfft2(pixels.astype(np.float32), axes=(1, 2))


def _parts(pixels: Pixels, size: int = 64) -> list[Pixels]:
    return [pixels[start : start + size] for start in range(0, len(pixels), size)]
