"""The six places where pictures are taken: background, ground, light and height of each camera.

Both domains know the same six places: `studio` shows them pale and tidied up, `street` as they are.
Backgrounds are painted once per place and domain, larger than a picture; each shot cuts its own window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from train.pedestrians.canvas import HEIGHT, WIDTH, Colour, darker, lighter, mix
from train.pedestrians.people import Domain

# Coordinates read better in rows than one a line.
# fmt: off

ROOM: Final = (40, 24)
"""How far a window may move across the background, pixels to the right and down."""
SIZE: Final = (WIDTH + ROOM[0], HEIGHT + ROOM[1])
_FINE: Final = 2
_CLEAN: Final = 0.5
"""Share of the pale wall colour in a studio background."""


@dataclass(frozen=True, slots=True)
class Place:
    """One camera: `light` -1 from the left, 1 from the right; `elevation` in [0, 1]; `warmth` per RGB channel.

    `floor` is the share of the height where wall meets ground; `tint` the colour of the street's light.
    """

    light: float
    elevation: float
    warmth: tuple[float, float, float]
    tint: tuple[float, float, float]
    floor: float


PLACES: Final[tuple[Place, ...]] = (
    Place(1.0, 0.35, (1.03, 1.0, 0.95), (1.08, 1.0, 0.86), 0.66),  # plaza, late sun
    Place(-1.0, 0.1, (1.02, 1.0, 0.97), (1.24, 0.98, 0.66), 0.80),  # brick wall, sodium lamp
    Place(1.0, 0.5, (0.99, 1.02, 0.98), (0.94, 1.06, 0.88), 0.60),  # park path, below trees
    Place(-1.0, 0.9, (0.98, 1.0, 1.03), (0.84, 0.97, 1.18), 0.45),  # crossing from above, blue hour
    Place(1.0, 0.6, (0.98, 1.02, 1.0), (0.88, 1.10, 0.94), 0.62),  # corridor, fluorescent tubes
    Place(-1.0, 0.2, (1.03, 1.0, 0.97), (1.14, 0.94, 1.04), 0.78),  # shop front, neon
)


class _Board:
    """A brush whose coordinates are shares of the background's size."""

    def __init__(self, base: Colour) -> None:
        self.size = (SIZE[0] * _FINE, SIZE[1] * _FINE)
        self.image = Image.new("RGB", self.size, base)
        self.brush = ImageDraw.Draw(self.image)

    def _scale(self, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x * self.size[0], y * self.size[1]) for x, y in points]

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        (a, b), (c, d) = self._scale([(x0, y0), (x1, y1)])
        self.brush.rectangle((a, b, max(a, c), max(b, d)), fill=colour)

    def area(self, points: list[tuple[float, float]], colour: Colour) -> None:
        self.brush.polygon(self._scale(points), fill=colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        (a, b), (c, d) = self._scale([(x - rx, y - ry), (x + rx, y + ry)])
        self.brush.ellipse((a, b, c, d), fill=colour)

    def line(self, points: list[tuple[float, float]], colour: Colour, width: int = 2) -> None:
        self.brush.line(self._scale(points), fill=colour, width=width)

    def shade(self, y0: float, y1: float, top: Colour, low: Colour) -> None:
        """A vertical gradient between two heights."""
        first, last = round(y0 * self.size[1]), round(y1 * self.size[1])
        for row in range(first, last):
            self.brush.line((0, row, self.size[0], row), fill=mix(top, low, (row - first) / max(1, last - first)))


def _tiles(board: _Board, floor: float, colour: Colour, centre: float, *, rows: int = 7, columns: int = 9) -> None:
    """Joints of paving that run to a vanishing point above the floor's edge."""
    for number in range(1, rows + 1):
        y = floor + (1 - floor) * (number / rows) ** 1.8
        board.line([(0, y), (1, y)], colour, 2)
    for number in range(-columns, columns + 1):
        board.line([(centre + number * 0.07, floor), (centre + number * 0.34, 1.0)], colour, 2)


def _plaza(board: _Board, floor: float, rng: np.random.Generator, *, rich: bool) -> None:
    board.shade(0, floor, (150, 188, 222), (224, 230, 228))
    for x, top, wide, colour in ((0.0, 0.2, 0.34, (186, 172, 158)), (0.34, 0.31, 0.26, (166, 160, 164)),
                                 (0.6, 0.14, 0.4, (198, 184, 160))):
        board.box(x, top, x + wide, floor, colour)
        board.box(x, top, x + wide, top + 0.012, darker(colour, 0.2))
        for row in range(int((floor - top) / 0.07)):
            for column in range(3):
                wx, wy = x + wide * (0.12 + column * 0.3), top + 0.035 + row * 0.07
                lit = rich and rng.random() < 0.25
                board.box(wx, wy, wx + wide * 0.17, wy + 0.04, (250, 226, 150) if lit else (112, 130, 148))
    board.shade(floor, 1, (190, 184, 174), (164, 158, 150))
    _tiles(board, floor, (150, 144, 138), 0.5)
    if rich:
        board.box(0.10, 0.34, 0.118, floor + 0.05, (54, 58, 60))
        board.disc(0.109, 0.33, 0.045, 0.016, (252, 240, 206))
        board.box(0.74, floor - 0.02, 0.98, floor + 0.005, (110, 76, 52))
        board.box(0.77, floor, 0.79, floor + 0.05, (60, 56, 54))
        board.box(0.93, floor, 0.95, floor + 0.05, (60, 56, 54))


def _brick_wall(board: _Board, floor: float, rng: np.random.Generator, *, rich: bool) -> None:
    board.box(0, 0, 1, floor, (150, 136, 124))
    rows = 34
    for row in range(rows):
        y = floor * row / rows
        for column in range(-1, 7):
            x = (column + (0.5 if row % 2 else 0.0)) / 6
            shade = float(rng.uniform(-0.16, 0.16))
            brick: Colour = (164, 98, 76)
            colour = lighter(brick, shade) if shade > 0 else darker(brick, -shade)
            board.box(x + 0.007, y + 0.002, x + 1 / 6 - 0.007, y + floor / rows - 0.003, colour)
    board.box(0, floor - 0.03, 1, floor, (112, 106, 102))
    board.shade(floor, 1, (158, 154, 150), (136, 132, 130))
    _tiles(board, floor, (120, 116, 114), 0.4, rows=4, columns=6)
    if rich:
        board.box(0.62, 0.18, 0.9, 0.36, (226, 220, 202))
        board.box(0.65, 0.2, 0.87, 0.29, (186, 84, 60))
        board.box(0.65, 0.305, 0.8, 0.313, (90, 90, 90))
        board.box(0.65, 0.325, 0.84, 0.333, (90, 90, 90))
        board.box(0.09, 0, 0.13, floor, (88, 92, 94))
        for y in (0.15, 0.45, 0.7):
            board.box(0.08, y, 0.14, y + 0.01, (66, 70, 72))
        board.area([(0.2, 0.62), (0.3, 0.56), (0.42, 0.6), (0.5, 0.55), (0.54, 0.62), (0.4, 0.66), (0.28, 0.66)],
                   (92, 150, 160))


def _park_path(board: _Board, floor: float, rng: np.random.Generator, *, rich: bool) -> None:
    board.shade(0, floor, (176, 206, 214), (220, 230, 204))
    for layer, (base, tone) in enumerate(((0.24, (142, 176, 128)), (0.36, (108, 152, 98)), (0.48, (82, 128, 78)))):
        for number in range(9):
            x, y = float(rng.uniform(-0.05, 1.05)), base + float(rng.uniform(-0.05, 0.05))
            board.disc(x, y, 0.14, 0.075, mix(tone, (224, 216, 120), 0.05 * (number % 3)))
        board.box(0, base + 0.02, 1, floor, darker(tone, 0.04 * layer))
    for x in (0.12, 0.86) if rich else (0.1,):
        board.box(x - 0.03, 0.2, x + 0.03, floor + 0.02, (96, 74, 56))
    board.shade(floor, 1, (134, 170, 96), (112, 150, 82))
    board.area([(0.42, floor), (0.58, floor), (1.15, 1), (-0.15, 1)], (206, 188, 150))
    if rich:
        for _ in range(60):
            x, y = float(rng.random()), floor + (1 - floor) * float(rng.random())
            board.disc(x, y, 0.012, 0.003, (184, 142, 70) if rng.random() < 0.5 else (110, 130, 70))
        board.box(0.66, floor - 0.06, 0.96, floor - 0.04, (128, 88, 58))
        board.box(0.66, floor - 0.02, 0.96, floor + 0.0, (128, 88, 58))
        for x in (0.68, 0.92):
            board.box(x, floor - 0.06, x + 0.02, floor + 0.04, (60, 58, 56))
        for _ in range(16):
            board.disc(float(rng.random()), float(rng.uniform(0.0, 0.12)), 0.12, 0.04, (70, 112, 66))


def _crossing(board: _Board, floor: float, rng: np.random.Generator, *, rich: bool) -> None:
    board.shade(0, floor, (170, 178, 188), (190, 192, 194))
    for number in range(4):
        x = number * 0.26 - 0.02
        board.box(x, 0.02 + 0.04 * (number % 2), x + 0.23, floor - 0.06, ((150, 146, 150), (172, 158, 146))[number % 2])
        for row in range(4):
            lit = rich and rng.random() < 0.4
            board.box(x + 0.05, 0.08 + row * 0.07, x + 0.18, 0.12 + row * 0.07,
                      (248, 222, 150) if lit else (104, 118, 136))
    board.box(0, floor - 0.06, 1, floor, (176, 174, 170))
    board.box(0, floor - 0.01, 1, floor, (128, 128, 128))
    board.shade(floor, 1, (112, 114, 120), (98, 100, 106))
    for number in range(6):
        y0, y1 = floor + 0.06 + 0.085 * number, floor + 0.06 + 0.085 * number + 0.026 + 0.006 * number
        board.area([(-0.1, y0 + 0.012), (1.1, y0 - 0.012), (1.1, y1 - 0.012), (-0.1, y1 + 0.012)], (224, 224, 220))
    if rich:
        board.box(0.84, 0.08, 0.862, floor + 0.05, (50, 52, 56))
        board.box(0.81, 0.06, 0.89, 0.17, (36, 38, 42))
        for y, colour in ((0.08, (222, 60, 52)), (0.115, (90, 80, 40)), (0.15, (40, 70, 50))):
            board.disc(0.85, y, 0.024, 0.012, colour)
        board.area([(0.0, floor - 0.09), (0.06, floor - 0.13), (0.26, floor - 0.13), (0.34, floor - 0.085),
                    (0.44, floor - 0.07), (0.44, floor - 0.02), (0.0, floor - 0.02)], (96, 60, 66))
        board.disc(0.33, floor - 0.02, 0.05, 0.022, (30, 30, 34))


def _corridor(board: _Board, floor: float, rng: np.random.Generator, *, rich: bool) -> None:
    board.box(0, 0, 1, 1, (214, 216, 212))
    near, far = (-0.25, 1.25), (0.3, 0.7)
    top = 0.2
    board.area([(near[0], 0), (near[1], 0), (far[1], top), (far[0], top)], (196, 200, 200))
    board.box(far[0], top, far[1], floor, (228, 230, 224))
    board.area([(0, 0.0), (far[0], top), (far[0], floor), (near[0], 1), (0, 1)], (206, 212, 206))
    board.area([(1, 0.0), (far[1], top), (far[1], floor), (near[1], 1), (1, 1)], (190, 198, 194))
    board.area([(near[0], 1), (far[0], floor), (far[1], floor), (near[1], 1)], (160, 166, 164))
    for share in (0.05, 0.3, 0.55, 0.8):
        y, half = top * share, 0.16 + (1 - share) * 0.18
        board.area([(0.5 - half, y), (0.5 + half, y), (0.5 + half * 0.86, y + 0.022), (0.5 - half * 0.86, y + 0.022)],
                   (250, 252, 244))
    board.box(0.43, top + 0.1, 0.57, floor, (132, 148, 156))
    board.box(0.45, top + 0.13, 0.55, top + 0.2, (206, 222, 226))
    for x0, x1 in ((0.04, 0.17), (0.83, 0.96)):
        board.area([(x0, 0.30), (x1, 0.33), (x1, floor + 0.1), (x0, floor + 0.14)], (150, 124, 100))
    if rich:
        board.area([(0.0, 0.55), (far[0], 0.46), (far[0], 0.475), (0.0, 0.575)], (82, 132, 112))
        board.area([(1.0, 0.55), (far[1], 0.46), (far[1], 0.475), (1.0, 0.575)], (82, 132, 112))
        board.box(0.74, 0.3, 0.8, 0.38, (190, 60, 50))
        for _ in range(5):
            x = float(rng.uniform(0.1, 0.9))
            board.box(x, floor + 0.1, x + 0.02, 1, (176, 184, 180))


def _shop_front(board: _Board, floor: float, rng: np.random.Generator, *, rich: bool) -> None:
    board.box(0, 0, 1, floor, (92, 100, 104))
    board.box(0, 0, 1, 0.1, (72, 88, 96))
    if rich:
        board.box(0.2, 0.025, 0.8, 0.075, (238, 120, 160))
        board.box(0.23, 0.035, 0.77, 0.065, (250, 214, 226))
    for number in range(10):
        x = number / 10
        colour = ((228, 222, 210), (190, 92, 80))[number % 2]
        board.area([(x, 0.1), (x + 0.1, 0.1), (x + 0.1, 0.19), (x, 0.19)], colour)
        board.disc(x + 0.05, 0.19, 0.05, 0.016, colour)
    board.shade(0.225, floor - 0.09, (244, 232, 200), (220, 200, 162))
    for x in (0.0, 0.47, 0.94):
        board.box(x, 0.2, x + 0.05, floor - 0.08, (66, 74, 80))
    if rich:
        for x, colour in ((0.24, (110, 120, 150)), (0.73, (150, 96, 110))):
            board.disc(x, 0.34, 0.04, 0.026, (222, 206, 188))
            board.area([(x - 0.1, 0.385), (x + 0.1, 0.385), (x + 0.075, 0.53), (x + 0.09, floor - 0.1),
                        (x - 0.09, floor - 0.1), (x - 0.075, 0.53)], colour)
        for _ in range(14):
            board.disc(float(rng.random()), float(rng.uniform(0.24, 0.32)), 0.02, 0.009, (255, 246, 214))
    board.area([(0.05, 0.62), (0.3, 0.225), (0.38, 0.225), (0.12, floor - 0.09), (0.05, floor - 0.09)],
               (246, 238, 214))
    board.box(0, floor - 0.09, 1, floor, (80, 72, 66))
    board.shade(floor, 1, (166, 160, 158), (142, 138, 138))
    _tiles(board, floor, (126, 122, 122), 0.6, rows=4, columns=6)


_PAINTERS: Final[tuple[Callable[..., None], ...]] = (
    _plaza, _brick_wall, _park_path, _crossing, _corridor, _shop_front,
)


@lru_cache(maxsize=12)
def background(camera: int, domain: Domain) -> Image.Image:
    """The whole backdrop of a camera, `SIZE` pixels, RGB; callers must not draw on it.

    Raises IndexError for a camera other than 0 to 5.
    """
    rich = domain == "street"
    board = _Board((200, 200, 200))
    _PAINTERS[camera](board, PLACES[camera].floor, np.random.default_rng([camera, 7]), rich=rich)
    picture = board.image.reduce(_FINE).filter(ImageFilter.GaussianBlur(1.3 if rich else 2.2))
    if rich:
        return picture
    pale = Image.new("RGB", picture.size, (228, 231, 233))
    return Image.blend(picture, pale, _CLEAN)


def window(camera: int, domain: Domain, rng: np.random.Generator) -> Image.Image:
    """A fresh copy of a picture's part of the background, `WIDTH` x `HEIGHT`."""
    x, y = int(rng.integers(0, ROOM[0] + 1)), int(rng.integers(0, ROOM[1] + 1))
    return background(camera, domain).crop((x, y, x + WIDTH, y + HEIGHT))


@lru_cache(maxsize=512)
def lamp(camera: int, strength: float, size: tuple[int, int]) -> Image.Image:
    """The place's light across a picture of `size`, RGB of equal bands: white below the lamp, darker away from it."""
    x = (1.0 - np.linspace(-1, 1, size[0])[None, :] * PLACES[camera].light) / 2
    y = np.linspace(0, 1, size[1])[:, None]
    field = 255.0 * (1.0 - strength * (0.6 * x + 0.4 * y))
    grey = Image.fromarray(field.astype(np.uint8))
    return Image.merge("RGB", (grey, grey, grey))
