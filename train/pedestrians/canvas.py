"""The brush of `drawing`: smooth shapes on a colour layer, with a soft light layer beside it.

Shapes are given in body units (x right, y up from the ground, 1 = an adult's height). Colours are painted flat
at `SUPERSAMPLE` times the picture's size; shade and contact shadows are painted as grey on a layer of the
picture's own size, blurred and multiplied later, which makes soft shading cost no more than a few polygons.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

WIDTH: Final = 128
HEIGHT: Final = 384
SUPERSAMPLE: Final = 3
MARGIN: Final = 28
"""Room left and right of the picture: a figure is drawn first and its frame chosen afterwards."""

NEUTRAL: Final = 150
"""Grey of the light layer that leaves a colour as it is; below darkens, above lightens."""
HALF_DARK: Final = 128
DARK: Final = 106
BRIGHT: Final = 164
CONTACT: Final = 84

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cloth:
    """A fabric: one colour, and on it a pattern of a second one. `period` and `phase` are in body units."""

    colour: Colour
    pattern: str = "plain"
    accent: Colour = (255, 255, 255)
    period: float = 0.06
    phase: float = 0.0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where body units lie in the picture: ground point (pixels), pixels per unit, mirrored or not.

    `elevation` in [0, 1] looks down on the figure: legs shorten, head and shoulders grow.
    `light` is -1 for light from the left of the picture, 1 from the right.
    """

    x: float
    y: float
    unit: float
    flip: bool
    elevation: float
    light: float


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Blend two colours; `share` 0 is the first, 1 the second."""
    a, b, c = (round(x + (y - x) * share) for x, y in zip(first, second, strict=True))
    return a, b, c


def lighter(colour: Colour, share: float) -> Colour:
    """Move a colour towards white."""
    return mix(colour, (255, 255, 255), share)


def darker(colour: Colour, share: float) -> Colour:
    """Move a colour towards a bluish black."""
    return mix(colour, (12, 12, 24), share)


def luminance(colour: Colour) -> float:
    """Perceived brightness, 0 to 255 (Rec. 601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def detail(colour: Colour, share: float = 0.28) -> Colour:
    """A tone of the same colour for seams: darker, but lighter on cloth too dark to show it."""
    return lighter(colour, share * 0.8) if luminance(colour) < 70 else darker(colour, share)


@lru_cache(maxsize=64)
def _spline(count: int, steps: int, closed: bool) -> Array:
    """Weights (samples, count) of a uniform Catmull-Rom spline through `count` control points."""
    segments = count if closed else count - 1
    rows = []
    for segment in range(segments):
        for step in range(steps):
            t = step / steps
            weights = (
                (-t + 2 * t * t - t**3) / 2,
                (2 - 5 * t * t + 3 * t**3) / 2,
                (t + 4 * t * t - 3 * t**3) / 2,
                (t**3 - t * t) / 2,
            )
            row = np.zeros(count)
            for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
                index = (segment + offset) % count if closed else min(max(segment + offset, 0), count - 1)
                row[index] += weight
            rows.append(row)
    if not closed:
        rows.append(np.eye(count)[-1])
    return np.array(rows)


class Canvas:
    """Two layers of one figure: premultiplied colour (`SUPERSAMPLE` times as large) and light."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self._sign = -1.0 if placement.flip else 1.0
        # "RGBa" is premultiplied: shrinking it needs no conversion, and shapes are opaque anyway.
        self._colour = Image.new("RGBa", ((WIDTH + 2 * MARGIN) * SUPERSAMPLE, HEIGHT * SUPERSAMPLE))
        self._light = Image.new("L", (WIDTH + 2 * MARGIN, HEIGHT), NEUTRAL)
        self._brush = ImageDraw.Draw(self._colour)
        self._shade = ImageDraw.Draw(self._light)

    def layers(self) -> tuple[Image.Image, Image.Image]:
        """The figure shrunk to the picture's size (mode RGBa) and its light (mode L)."""
        return self._colour.reduce(SUPERSAMPLE), self._light

    def pixels(self, points: Points | Array) -> Array:
        """Body units to pixels of the picture, (n, 2)."""
        place = self.placement
        source = np.asarray(points, dtype=np.float64)
        y = source[:, 1]
        out = np.empty_like(source)
        tilt = place.elevation
        out[:, 0] = place.x + source[:, 0] * (self._sign * place.unit) * (1.0 + 0.12 * tilt * (y - 0.55))
        out[:, 1] = place.y - place.unit * y * (1.0 - 0.11 * tilt * (1.0 - y))
        return out

    def ribbon(
        self, left: Points, right: Points, fill: Colour | Cloth, *, edge: bool = True, straight: bool = False
    ) -> None:
        """Paint the shape between two edges given from one end to the other with as many points each.

        The edge turned away from the light gets a soft dark side; `edge` also darkens what lies behind.
        """
        first, second = self.pixels(left), self.pixels(right)
        if not straight:
            weights = _spline(len(left), 5, False)
            first, second = weights @ first, weights @ second
        outline = np.concatenate((first, second[::-1]))
        self._paint(outline, fill)
        corners = outline.ravel().tolist()
        if edge:
            self._shade.line([*corners, *corners[:2]], fill=CONTACT, width=3)
        self._shade.polygon(corners, fill=NEUTRAL)
        middle = float(np.mean(first[:, 0] - second[:, 0])) * self.placement.light
        dim, lit = (second, first) if middle > 0 else (first, second)
        across = lit - dim
        for reach, grey in ((0.44, HALF_DARK), (0.26, DARK)):
            self._shade.polygon(np.concatenate((dim, (dim + across * reach)[::-1])).ravel().tolist(), fill=grey)
        self._shade.polygon(
            np.concatenate((dim + across * 0.68, (dim + across * 0.93)[::-1])).ravel().tolist(), fill=BRIGHT
        )

    def blob(
        self, points: Points, fill: Colour | Cloth, *, smooth: bool = True, edge: bool = False, light: int = NEUTRAL
    ) -> None:
        """Paint a closed outline evenly lit, e.g. hair, a collar, a small thing."""
        outline = self.pixels(points)
        if smooth:
            outline = _spline(len(points), 5, True) @ outline
        self._paint(outline, fill)
        corners = outline.ravel().tolist()
        if edge:
            self._shade.line([*corners, *corners[:2]], fill=CONTACT, width=3)
        self._shade.polygon(corners, fill=light)

    def mark(self, points: Points, fill: Colour, *, smooth: bool = True) -> None:
        """Paint a closed outline on the colour layer alone: a detail that takes the light of what it lies on."""
        outline = self.pixels(points)
        if smooth:
            outline = _spline(len(points), 4, True) @ outline
        self._brush.polygon((outline * SUPERSAMPLE).ravel().tolist(), fill=(*fill, 255))

    def line(self, points: Points, fill: Colour, width: float, *, smooth: bool = True) -> None:
        """Draw a line `width` units wide, colour layer alone."""
        path = self.pixels(points)
        if smooth and len(points) > 2:
            path = _spline(len(points), 5, False) @ path
        thick = max(1, round(width * self.placement.unit * SUPERSAMPLE))
        self._brush.line((path * SUPERSAMPLE).ravel().tolist(), fill=(*fill, 255), width=thick, joint="curve")

    def oval(
        self, centre: tuple[float, float], radius: tuple[float, float], fill: Colour, *, lit: bool = False
    ) -> None:
        """Paint an upright ellipse; `lit` also resets the light below it and darkens around it."""
        x, y = self.pixels([centre])[0].tolist()
        rx, ry = radius[0] * self.placement.unit, radius[1] * self.placement.unit
        s = SUPERSAMPLE
        self._brush.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill=(*fill, 255))
        if lit:
            self._shade.ellipse((x - rx - 1.5, y - ry - 1.5, x + rx + 1.5, y + ry + 1.5), fill=CONTACT)
            self._shade.ellipse((x - rx, y - ry, x + rx, y + ry), fill=DARK)
            shift = self.placement.light * rx * 0.25
            self._shade.ellipse((x - rx * 0.7 + shift, y - ry, x + rx * 0.7 + shift, y + ry * 0.8), fill=NEUTRAL)

    def shadow(self, points: Points, light: int = DARK) -> None:
        """Darken (or lighten) a smooth region of the light layer only, e.g. below a chin."""
        outline = _spline(len(points), 4, True) @ self.pixels(points)
        self._shade.polygon(outline.ravel().tolist(), fill=light)

    def limb(
        self,
        joints: Points,
        radii: Sequence[float],
        fill: Colour | Cloth,
        *,
        caps: tuple[bool, bool] = (True, True),
        edge: bool = True,
    ) -> None:
        """Paint a tapered chain through `joints` with half widths `radii`; `caps` rounds its ends."""
        path = [complex(x, y) for x, y in joints]
        steps = [b - a for a, b in itertools.pairwise(path)]
        units = [step / (abs(step) or 1.0) for step in steps]
        ahead = [units[0], *(a + b for a, b in itertools.pairwise(units)), units[-1]]
        ahead = [direction / (abs(direction) or 1.0) for direction in ahead]
        stations = list(zip(path, ahead, radii, strict=True))
        if caps[0]:
            p, d, r = stations[0]
            stations[:0] = [(p - d * r, d, r * 0.3), (p - d * r * 0.6, d, r * 0.78)]
        if caps[1]:
            p, d, r = stations[-1]
            stations += [(p + d * r * 0.6, d, r * 0.78), (p + d * r, d, r * 0.3)]
        left = [p + d * 1j * r for p, d, r in stations]
        right = [p - d * 1j * r for p, d, r in stations]
        self.ribbon([(z.real, z.imag) for z in left], [(z.real, z.imag) for z in right], fill, edge=edge)

    def _paint(self, outline: Array, fill: Colour | Cloth) -> None:
        large = outline * SUPERSAMPLE
        if isinstance(fill, tuple):
            self._brush.polygon(large.ravel().tolist(), fill=(*fill, 255))
        elif fill.pattern not in ("striped", "checked", "dotted"):
            self._brush.polygon(large.ravel().tolist(), fill=(*fill.colour, 255))
        else:
            self._paint_pattern(large, fill)

    def _paint_pattern(self, large: Array, cloth: Cloth) -> None:
        (x0, y0), (x1, y1) = np.floor(large.min(0)).tolist(), np.ceil(large.max(0)).tolist()
        size = (int(x1 - x0) + 1, int(y1 - y0) + 1)
        mask = Image.new("L", size)
        ImageDraw.Draw(mask).polygon((large - (x0, y0)).ravel().tolist(), fill=255)
        tile = Image.new("RGBa", size, (*cloth.colour, 255))
        brush = ImageDraw.Draw(tile)
        ink = (*cloth.accent, 255)
        place = self.placement
        period = cloth.period * place.unit * SUPERSAMPLE
        # The pattern hangs on the person, not on the picture: it starts at the ground point.
        start_y = (place.y * SUPERSAMPLE - y0 - cloth.phase * period) % period - period
        start_x = (place.x * SUPERSAMPLE - x0 - cloth.phase * period) % period - period
        rows = [start_y + period * i for i in range(int(size[1] / period) + 3)]
        columns = [start_x + period * i for i in range(int(size[0] / period) + 3)]
        if cloth.pattern == "striped":
            for y in rows:
                brush.rectangle((0, y, size[0], y + period * 0.42), fill=ink)
        elif cloth.pattern == "checked":
            half = (*mix(cloth.colour, cloth.accent, 0.55), 255)
            for x in columns:
                brush.rectangle((x, 0, x + period * 0.36, size[1]), fill=half)
            for y in rows:
                brush.rectangle((0, y, size[0], y + period * 0.36), fill=half)
                for x in columns:
                    brush.rectangle((x, y, x + period * 0.36, y + period * 0.36), fill=ink)
        else:
            for number, y in enumerate(rows):
                for x in columns:
                    left = x + (period / 2 if number % 2 else 0.0)
                    brush.ellipse((left, y, left + period * 0.6, y + period * 0.6), fill=ink)
        self._colour.paste(tile, (int(x0), int(y0)), mask)
