"""What the street does to a picture: clutter, occluders, dusk, tint, blur, low resolution, noise.

All strengths are in `STREET`, so that the difficulty of the domain is set in one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from train.pedestrians.canvas import HEIGHT, WIDTH, Colour, darker, mix
from train.pedestrians.people import Shot
from train.pedestrians.scenes import PLACES, lamp

# Coordinates read better in rows than one a line.
# fmt: off


@dataclass(frozen=True, slots=True)
class StreetStrength:
    """Ranges are (lowest, highest), drawn again for each picture."""

    exposure: tuple[float, float] = (0.7, 0.95)  # brightness kept
    gamma: tuple[float, float] = (1.0, 1.15)  # darkens the middle tones, white stays light
    tint: tuple[float, float] = (0.3, 0.65)  # share of the place's coloured light
    haze: tuple[float, float] = (0.0, 0.08)  # grey veil that takes contrast
    unevenness: float = 0.18  # what the dark corner of the picture loses of its light
    blur: tuple[float, float] = (0.3, 1.5)  # defocus, standard deviation in pixels
    motion: tuple[float, float] = (0.5, 5.0)  # length of a sideways smear, pixels
    low_resolution: tuple[float, float] = (0.34, 0.8)  # size of the sensor's picture before it is enlarged
    noise: tuple[float, float] = (2.0, 11.0)  # standard deviation, grey levels
    clutter: tuple[int, int] = (1, 4)  # things in the background
    shadow: float = 0.42  # how dark a cast shadow is


STREET: Final = StreetStrength()


def _between(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(rng.uniform(*limits))


def add_clutter(picture: Image.Image, shot: Shot, rng: np.random.Generator) -> Image.Image:
    """Passers-by, signs and posts behind the figure, out of focus: painted on the picture at half its size."""
    small = picture.reduce(2)
    brush = ImageDraw.Draw(small)
    wide, tall = small.size
    floor = PLACES[shot.camera].floor * tall
    for _ in range(int(rng.integers(STREET.clutter[0], STREET.clutter[1] + 1))):
        x = float(rng.uniform(-0.05, 1.05)) * wide
        kind = rng.integers(0, 4)
        tone: Colour = ((70, 74, 92), (116, 66, 62), (64, 92, 80), (150, 140, 120))[int(rng.integers(0, 4))]
        if kind < 2:
            _passer_by(brush, x, floor + float(rng.uniform(4, 20)), float(rng.uniform(45, 85)), tone)
        elif kind == 2:
            brush.rectangle((x - 1.5, 0, x + 1.5, floor + 10), fill=darker(tone, 0.4))
        else:
            y = float(rng.uniform(0.1, 0.35)) * tall
            brush.rectangle((x - 8, y, x + 8, y + 17), fill=tone)
            brush.rectangle((x - 6, y + 2, x + 6, y + 8), fill=mix(tone, (250, 250, 240), 0.7))
            brush.rectangle((x - 1, y + 17, x + 1, floor + 5), fill=darker(tone, 0.5))
    return small.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)


def _passer_by(brush: ImageDraw.ImageDraw, x: float, foot: float, tall: float, tone: Colour) -> None:
    legs, skin = darker(tone, 0.5), (186, 148, 122)
    brush.polygon([x - tall * 0.1, foot - tall * 0.48, x + tall * 0.1, foot - tall * 0.48, x + tall * 0.14, foot,
                   x + tall * 0.06, foot, x, foot - tall * 0.3, x - tall * 0.07, foot, x - tall * 0.14, foot],
                  fill=legs)
    brush.rounded_rectangle((x - tall * 0.14, foot - tall * 0.84, x + tall * 0.14, foot - tall * 0.42), tall * 0.06,
                            fill=tone)
    brush.ellipse((x - tall * 0.065, foot - tall, x + tall * 0.065, foot - tall * 0.84), fill=skin)


def draw_occluder(picture: Image.Image, shot: Shot, top: float, rng: np.random.Generator) -> Image.Image:
    """Put what stands between camera and figure over the picture, from row `top` downwards."""
    if shot.occluder == "none":
        return picture
    brush = ImageDraw.Draw(picture)
    {"bush": _bush, "car": _car, "fence": _fence, "person": _person, "pole": _pole}[shot.occluder](brush, top, rng)
    return picture


def _bush(brush: ImageDraw.ImageDraw, top: float, rng: np.random.Generator) -> None:
    brush.rectangle((0, top + 8, WIDTH, HEIGHT), fill=(40, 66, 38))
    count = 46
    xs, ys = rng.uniform(-8, WIDTH + 8, count), rng.random(count)
    sizes, tones = rng.uniform(8, 17, count), rng.random(count)
    xs[:10] = np.linspace(-6, WIDTH + 6, 10)
    ys[:10] *= 0.06
    for x, share, size, tone in zip(xs.tolist(), np.sort(ys).tolist(), sizes.tolist(), tones.tolist(), strict=True):
        y = top + 4 + share * (HEIGHT - top)
        colour = mix((48, 82, 42), (106, 146, 72), tone * (1.0 - 0.5 * share))
        brush.ellipse((x - size, y - size * 0.7, x + size, y + size * 0.7), fill=colour)


def _car(brush: ImageDraw.ImageDraw, top: float, rng: np.random.Generator) -> None:
    paint: Colour = ((150, 156, 164), (112, 40, 44), (48, 66, 104), (206, 206, 202))[int(rng.integers(0, 4))]
    bend = float(rng.uniform(-8, 8))
    edge = [(-20, top + 12 + bend), (WIDTH * 0.2, top + 1 + bend * 0.4), (WIDTH * 0.6, top - bend * 0.2),
            (WIDTH + 20, top + 10 - bend)]
    brush.polygon([*edge, (WIDTH + 20, HEIGHT + 9), (-20, HEIGHT + 9)], fill=paint)
    brush.line([(x, y + 3) for x, y in edge], fill=mix(paint, (255, 255, 255), 0.5), width=3)
    glass = [(x, y + 13) for x, y in edge]
    low = [(x, y + 44) for x, y in reversed(edge)]
    brush.polygon(glass + low, fill=(44, 54, 66))
    brush.polygon([(10, top + 44), (34, top + 15), (50, top + 14), (28, top + 44)], fill=(92, 108, 122))
    brush.rectangle((WIDTH * 0.62, top + 10, WIDTH * 0.66, top + 52), fill=darker(paint, 0.25))
    brush.line([(0, top + 78), (WIDTH, top + 76)], fill=darker(paint, 0.4), width=2)
    brush.rounded_rectangle((70, top + 62, 88, top + 67), 2, fill=darker(paint, 0.5))


def _fence(brush: ImageDraw.ImageDraw, top: float, rng: np.random.Generator) -> None:
    metal: Colour = (62, 68, 72)
    gap, start = float(rng.uniform(13, 18)), float(rng.uniform(0, 12))
    for number in range(int(WIDTH / gap) + 2):
        x = start + number * gap
        brush.rectangle((x - 1.0, top, x + 1.0, HEIGHT), fill=metal)
    brush.rectangle((0, top + 4, WIDTH, top + 8), fill=darker(metal, 0.2))
    brush.rectangle((0, top + 96, WIDTH, top + 99), fill=darker(metal, 0.2))


def _person(brush: ImageDraw.ImageDraw, top: float, rng: np.random.Generator) -> None:
    """Someone nearer to the camera walks by below: shoulders across the picture, the head at one side."""
    coat: Colour = ((70, 76, 104), (136, 116, 92), (74, 104, 88), (128, 66, 70))[int(rng.integers(0, 4))]
    hair: Colour = ((40, 34, 34), (98, 64, 42), (170, 164, 158))[int(rng.integers(0, 3))]
    skin: Colour = (196, 152, 122)
    x = WIDTH * (0.16 if rng.random() < 0.5 else 0.84)
    ridge = [(x - 100, top + 30), (x - 62, top + 6), (x - 44, top - 4), (x - 16, top - 16), (x + 16, top - 16),
             (x + 44, top - 4), (x + 62, top + 6), (x + 100, top + 30)]
    brush.rectangle((0, top + 4, WIDTH, HEIGHT), fill=darker(coat, 0.45))
    brush.polygon([*ridge, (x + 100, HEIGHT + 9), (x - 100, HEIGHT + 9)], fill=coat)
    brush.polygon([(x - 100, top + 30), (x - 62, top + 6), (x - 52, top + 60), (x - 56, HEIGHT), (x - 100, HEIGHT)],
                  fill=darker(coat, 0.2))
    brush.polygon([(x + 100, top + 30), (x + 62, top + 6), (x + 52, top + 60), (x + 56, HEIGHT), (x + 100, HEIGHT)],
                  fill=darker(coat, 0.2))
    brush.line([(x, top), (x, HEIGHT)], fill=darker(coat, 0.25), width=2)
    brush.rectangle((x - 11, top - 30, x + 11, top - 10), fill=skin)
    for side in (-1, 1):
        brush.ellipse((x + side * 21 - 5, top - 52, x + side * 21 + 5, top - 36), fill=skin)
    brush.ellipse((x - 21, top - 72, x + 21, top - 22), fill=hair)
    brush.polygon([(x - 20, top - 20), (x + 20, top - 20), (x + 24, top - 8), (x, top - 3), (x - 24, top - 8)],
                  fill=darker(coat, 0.35))


def _pole(brush: ImageDraw.ImageDraw, top: float, rng: np.random.Generator) -> None:
    del top  # A pole passes the whole height, but hides little of the width.
    x = WIDTH * float(rng.choice([rng.uniform(0.04, 0.2), rng.uniform(0.8, 0.96)]))
    half = float(rng.uniform(4.0, 6.5))
    brush.rectangle((x - half, 0, x + half, HEIGHT), fill=(78, 82, 84))
    brush.rectangle((x - half, 0, x - half * 0.2, HEIGHT), fill=(122, 126, 128))
    brush.rectangle((x - half * 1.1, HEIGHT * 0.3, x + half * 1.1, HEIGHT * 0.38), fill=(206, 196, 160))


def degrade(picture: Image.Image, shot: Shot, rng: np.random.Generator) -> Image.Image:
    """Lens, light and sensor: low resolution, blur, dusk in the colour of the place's lamps, noise."""
    s = STREET
    share = _between(rng, s.low_resolution)
    small = (max(24, round(WIDTH * share)), max(72, round(HEIGHT * share)))
    smear, blur = _between(rng, s.motion), _between(rng, s.blur)
    picture = picture.resize(small, Image.Resampling.BOX)
    picture = picture.filter(ImageFilter.BoxBlur((blur * share + smear * share / 2, blur * share)))
    picture = ImageChops.multiply(picture.point(_exposure(shot, rng)), lamp(shot.camera, s.unevenness, small))
    picture = picture.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    grain = round(_between(rng, s.noise))
    y, x = int(rng.integers(0, _NOISE_SIZE - HEIGHT)), int(rng.integers(0, _NOISE_SIZE - WIDTH))
    noise = _noise(grain)[y : y + HEIGHT, x : x + WIDTH]
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def _exposure(shot: Shot, rng: np.random.Generator) -> list[int]:
    """Table of 3 x 256 greys: dusk (darker, duller) in the colour of the light, for `Image.point`."""
    gamma, exposure, haze, tint = (_between(rng, r) for r in (STREET.gamma, STREET.exposure, STREET.haze, STREET.tint))
    colour = (1.0 + (np.array(PLACES[shot.camera].tint) - 1.0) * tint) * rng.uniform(0.95, 1.05, 3)
    greys = np.linspace(0.0, 1.0, 256) ** gamma * (255 * exposure * (1 - haze)) + 96 * haze
    table: list[int] = np.clip(np.outer(colour, greys), 0, 255).astype(int).ravel().tolist()
    return table


_NOISE_SIZE: Final = 512


@lru_cache(maxsize=24)
def _noise(grain: int) -> NDArray[np.int16]:
    """A sheet of sensor noise, (512, 512, 3), standard deviation about `grain`; pictures cut their part of it.

    Half of it is coarse and coloured: what a camera's compression leaves of noise in the dark.
    """
    rng = np.random.default_rng([grain, 13])
    coarse = rng.standard_normal((_NOISE_SIZE // 2, _NOISE_SIZE // 2, 3)).repeat(2, axis=0).repeat(2, axis=1)
    fine = rng.standard_normal((_NOISE_SIZE, _NOISE_SIZE, 1))
    sheet: NDArray[np.int16] = np.rint((coarse + 0.5 * fine) * grain).astype(np.int16)
    return sheet
