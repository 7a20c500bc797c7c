"""Pictures of paper cut-outs, each written as a line of text: what `foreign` draws with.

A text holds cut-outs from back to front, parted by ";": a dye (a name or "#rrggbb", `~` for its darker tone), a kind,
and numbers. `%` is a polygon (x y ...), `=` the right half of a mirrored one, `*` an ellipse (x y rx ry), `/` a line
(width x y ...).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from PIL import ImageColor, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]
Spot = Callable[[float, float], Point]
"""From the coordinates of a cut-out to another place, in the end to pixels."""

_CIRCLE: Final = [(math.cos(turn * math.pi / 9), math.sin(turn * math.pi / 9)) for turn in range(18)]
INK: Final[Colour] = (38, 26, 34)


def paint(
    brush: ImageDraw.ImageDraw, text: str, spot: Spot, dyes: Mapping[str, Colour], *, unit: float, ink: int = 0
) -> None:
    """Paint a text of cut-outs where `spot` puts them.

    `dyes` are colours by name; one that they lack is read as "#rrggbb". `unit` is the pixels of line width 1, `ink` the
    width of outlines; with any, mirrored polygons get a dark side too.
    """
    for name, dark, kind, numbers in _parse(text):
        dye = dyes[name] if name in dyes else rgb(name)
        colour = mix(dye, INK, 0.35) if dark else dye
        if kind == "/":
            line = [spot(*point) for point in _pairs(numbers[1:])]
            brush.line(line, colour, max(2, round(numbers[0] * unit)), joint="curve")
            continue
        if kind == "*":
            x, y, rx, ry = numbers
            points = [(x + rx * c, y + ry * s) for c, s in _CIRCLE]
        else:
            points = _pairs(numbers)
        whole = points + [(-x, y) for x, y in reversed(points)] if kind == "=" else points
        brush.polygon([spot(*point) for point in whole], colour, mix(dye, INK, 0.7) if ink else None, max(1, ink))
        if kind == "=" and ink:
            side = [(x * 0.94, y) for x, y in points] + [(x * 0.5, y) for x, y in reversed(points)]
            brush.polygon([spot(*point) for point in side], mix(colour, INK, 0.18))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Blend two colours; `share` 0 is the first, 1 the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def rgb(dye: str) -> Colour:
    """The colour of "#rrggbb"."""
    red, green, blue = ImageColor.getrgb(dye)[:3]
    return red, green, blue


@lru_cache(maxsize=256)
def _parse(text: str) -> tuple[tuple[str, bool, str, tuple[float, ...]], ...]:
    """The (dye, darker, kind, numbers) of each cut-out."""
    found = re.findall(r"(#?\w+)(~?)([=%*/]) ([-. \d]+)", text)
    return tuple((dye, dark == "~", kind, tuple(map(float, rest.split()))) for dye, dark, kind, rest in found)


def _pairs(numbers: Sequence[float]) -> list[Point]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))
