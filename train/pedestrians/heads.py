"""Head of a drawn person: face, hair, headgear, glasses, scarf."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from train.pedestrians.canvas import Colour, darker, detail, lighter, luminance, mix
from train.pedestrians.figure import Figure, Outline
from train.pedestrians.palette import HAIR, tint

# Coordinates read better in rows than one a line.
# fmt: off

ROUND: Final = 1.12
"""How far hair and headgear stand off the skull."""


@dataclass(frozen=True, slots=True)
class Head:
    """Centre and half sizes of a head; `at` turns its own coordinates (1 = half a head) into body units."""

    x: float
    y: float
    half: float

    def at(self, points: list[tuple[float, float]]) -> Outline:
        """Points of the head's own frame in body units."""
        return [(self.x + u * self.half, self.y + v * self.half) for u, v in points]

    def one(self, u: float, v: float) -> tuple[float, float]:
        """One point of the head's own frame in body units."""
        return self.x + u * self.half, self.y + v * self.half


def place_head(fig: Figure) -> Head:
    """Where the head sits; the elderly carry it lower and, in profile, further ahead."""
    b = fig.body
    half = b.head / 2
    y = b.chin_y + half - 0.012 * b.stoop * b.height
    x = fig.pose.spine(b.chin_y) + 0.004 if fig.view == "side" else 0.0
    return Head(x, y - (0.012 * b.height * b.stoop if fig.view == "side" else 0.0), half)


def _mirrored(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Complete a right half outline, given from top to bottom, by its mirror image."""
    return points + [(-u, v) for u, v in reversed(points) if abs(u) > 1e-9]


def hair_hidden(fig: Figure) -> bool:
    """Whether the headgear covers all the hair there is."""
    style, gear = fig.person.hair_style, fig.person.headgear
    return style == "bald" or (gear in ("beanie", "hat") and style in ("short", "bun")) or (
        gear == "cap" and style == "bun"
    )


def _hair(fig: Figure) -> Colour:
    return HAIR[fig.person.hair_colour]


def draw_hair_behind(fig: Figure) -> None:
    """Hair that hangs behind neck and shoulders when seen from the front."""
    if hair_hidden(fig) or fig.view != "front":
        return
    head, style, canvas = place_head(fig), fig.person.hair_style, fig.canvas
    hair = darker(_hair(fig), 0.12)
    if style == "long":
        canvas.blob(head.at(_mirrored([(0.0, 1.05), (0.75, 0.85), (1.02, 0.2), (1.08, -0.7), (1.16, -1.5), (1.0, -2.1),
                                       (0.5, -2.2)])), hair)
    elif style == "ponytail":
        canvas.blob(head.at([(0.6, 0.75), (1.1, 0.62), (1.42, 0.1), (1.4, -0.7), (1.16, -1.5), (0.95, -1.55),
                             (1.02, -0.8), (0.95, 0.0)]), hair, edge=True)


def draw_head(fig: Figure) -> None:
    """Head, face, hair, headgear and glasses."""
    head = place_head(fig)
    if fig.view == "front":
        _draw_front(fig, head)
    elif fig.view == "back":
        _draw_back(fig, head)
    else:
        _draw_side(fig, head)
    _draw_headgear(fig, head)


def _ear(fig: Figure, head: Head, u: float, v: float) -> None:
    fig.canvas.oval(head.one(u, v), (0.15 * head.half, 0.24 * head.half), darker(fig.skin, 0.1), lit=True)


def _draw_front(fig: Figure, head: Head) -> None:
    canvas, person = fig.canvas, fig.person
    man = person.sex == "man" and person.age != "child"
    jaw = 0.62 if man else 0.5
    for side in (-1, 1):
        _ear(fig, head, side * 0.78, -0.08)
    right = [(0.0, 1.0), (0.5, 0.88), (0.77, 0.4), (0.78, -0.15), (0.7, -0.5), (jaw, -0.82 if man else -0.78),
             (0.24, -1.0)]
    canvas.ribbon(head.at([(-u, v) for u, v in right]), head.at(right), fig.skin)
    _draw_face(fig, head)
    if not hair_hidden(fig):
        _draw_front_hair(fig, head)
    if person.glasses != "none":
        _draw_front_glasses(fig, head)


def _draw_face(fig: Figure, head: Head) -> None:
    canvas, person = fig.canvas, fig.person
    skin, r = fig.skin, head.half
    ink = (44, 32, 32)
    shade = darker(skin, 0.22)
    child = person.age == "child"
    blush = mix(skin, (232, 96, 90), 0.3)
    for side in (-1, 1):
        canvas.oval(head.one(side * 0.46, -0.32), (0.15 * r, 0.11 * r), blush)
        canvas.oval(head.one(side * 0.32, -0.02), (0.095 * r, (0.135 if child else 0.115) * r), ink)
        canvas.oval(head.one(side * 0.32 + 0.03, 0.025), (0.035 * r, 0.035 * r), (255, 255, 255))
        brow = head.at([(side * 0.18, 0.2), (side * 0.33, 0.26), (side * 0.5, 0.19)])
        canvas.line(brow, darker(skin, 0.55), 0.055 * r)
        if person.sex == "woman":
            canvas.line(head.at([(side * 0.4, 0.05), (side * 0.5, 0.12)]), ink, 0.06 * r)
        if person.age == "elderly":
            canvas.line(head.at([(side * 0.24, -0.36), (side * 0.4, -0.52), (side * 0.42, -0.66)]), shade, 0.05 * r)
            canvas.line(head.at([(side * 0.2, -0.2), (side * 0.44, -0.2)]), shade, 0.04 * r)
    if person.age == "elderly":
        canvas.line(head.at([(-0.3, 0.44), (0.3, 0.44)]), shade, 0.04 * r)
    canvas.mark(head.at([(-0.09, -0.26), (0.0, -0.3), (0.1, -0.26), (0.03, 0.02)]), darker(skin, 0.14))
    lips = (188, 62, 66) if person.sex == "woman" and not child else darker(skin, 0.5)
    canvas.mark(head.at([(-0.23, -0.52), (0.0, -0.57), (0.23, -0.52), (0.0, -0.7)]), lips)


def _draw_front_hair(fig: Figure, head: Head) -> None:
    canvas, person = fig.canvas, fig.person
    hair = _hair(fig)
    style = person.hair_style
    if style == "short" and person.sex == "man":
        outline = [(-0.86, -0.02), (-0.93, 0.45), (-0.72, 0.98), (-0.2, 1.2), (0.35, 1.18), (0.78, 0.92), (0.94, 0.42),
                   (0.86, -0.02), (0.74, 0.32), (0.5, 0.52), (0.1, 0.5), (-0.3, 0.62), (-0.66, 0.44)]
    elif style == "short":
        # A bob that covers the ears.
        outline = [(-0.74, -0.72), (-0.98, -0.5), (-1.0, 0.3), (-0.78, 0.96), (-0.2, 1.2), (0.3, 1.18), (0.8, 0.92),
                   (1.0, 0.3), (0.98, -0.5), (0.74, -0.72), (0.68, -0.2), (0.62, 0.26), (0.2, 0.52), (-0.3, 0.42),
                   (-0.64, 0.2), (-0.68, -0.2)]
    elif style == "long":
        outline = [(-0.68, -1.5), (-1.05, -1.7), (-1.08, -0.8), (-1.0, 0.3), (-0.78, 0.96), (-0.2, 1.18), (0.3, 1.17),
                   (0.8, 0.94), (1.0, 0.3), (1.08, -0.8), (1.05, -1.7), (0.68, -1.5), (0.74, -0.6), (0.66, 0.2),
                   (0.24, 0.64), (0.08, 0.82), (-0.1, 0.64), (-0.6, 0.22), (-0.74, -0.6)]
    else:
        # Combed back into a ponytail or a bun.
        outline = [(-0.8, 0.0), (-0.88, 0.5), (-0.66, 0.96), (-0.2, 1.15), (0.2, 1.15), (0.66, 0.96), (0.88, 0.5),
                   (0.8, 0.0), (0.7, 0.36), (0.44, 0.62), (0.0, 0.7), (-0.44, 0.62), (-0.7, 0.36)]
    if style == "bun":
        canvas.oval(head.one(0.0, 1.34), (0.42 * head.half, 0.36 * head.half), darker(hair, 0.1), lit=True)
    canvas.blob(head.at(outline), hair, edge=True)
    shine = lighter(hair, 0.16)
    side = fig.canvas.placement.light * (-1 if fig.canvas.placement.flip else 1)
    if person.headgear == "none":
        canvas.mark(head.at([(side * 0.2, 0.92), (side * 0.5, 0.86), (side * 0.7, 0.62), (side * 0.42, 0.76)]), shine)


def _draw_front_glasses(fig: Figure, head: Head) -> None:
    canvas, r = fig.canvas, head.half
    dark = fig.person.glasses == "sunglasses"
    frame = (20, 20, 26)
    lens = (24, 26, 34) if dark else (226, 240, 248)
    for side in (-1, 1):
        cx = side * 0.37
        canvas.oval(head.one(cx, -0.02), (0.34 * r, 0.27 * r), frame)
        canvas.oval(head.one(cx, -0.02), (0.235 * r, 0.175 * r), lens)
        if dark:
            canvas.line(head.at([(cx - 0.14, 0.06), (cx + 0.02, 0.1)]), (120, 128, 146), 0.05 * r)
        else:
            canvas.oval(head.one(cx, -0.03), (0.095 * r, 0.115 * r), (44, 32, 32))
        canvas.line(head.at([(side * 0.66, 0.04), (side * 0.86, 0.08)]), frame, 0.09 * r)
    canvas.line(head.at([(-0.1, 0.04), (0.1, 0.04)]), frame, 0.1 * r)


def _draw_back(fig: Figure, head: Head) -> None:
    canvas, person = fig.canvas, fig.person
    for side in (-1, 1):
        _ear(fig, head, side * 0.8, -0.1)
    right = [(0.0, 1.0), (0.5, 0.88), (0.78, 0.4), (0.78, -0.2), (0.6, -0.68), (0.42, -0.92), (0.3, -1.0)]
    canvas.ribbon(head.at([(-u, v) for u, v in right]), head.at(right), fig.skin)
    if hair_hidden(fig):
        canvas.shadow(head.at([(-0.4, -0.7), (0.4, -0.7), (0.3, -1.0), (-0.3, -1.0)]))
        return
    hair, style = _hair(fig), person.hair_style
    dim = darker(hair, 0.24) if luminance(hair) > 60 else lighter(hair, 0.16)
    if style == "long":
        half = [(0.0, 1.18), (0.6, 1.02), (0.96, 0.4), (1.04, -0.6), (1.14, -1.6), (1.0, -2.15), (0.5, -2.3)]
    elif style == "short" and person.sex == "man":
        half = [(0.0, 1.16), (0.6, 1.0), (0.9, 0.4), (0.86, -0.15), (0.62, -0.62), (0.3, -0.78)]
    elif style == "short":
        half = [(0.0, 1.18), (0.62, 1.02), (0.98, 0.4), (1.02, -0.4), (0.82, -0.82), (0.4, -0.9)]
    else:
        half = [(0.0, 1.14), (0.6, 0.98), (0.88, 0.4), (0.8, -0.25), (0.5, -0.7), (0.2, -0.8)]
    canvas.ribbon(head.at([(-u, v) for u, v in half]), head.at(half), hair)
    if style == "ponytail":
        tail = [(0.16, 0.42), (0.4, 0.1), (0.42, -0.7), (0.26, -1.6), (0.0, -2.0)]
        canvas.ribbon(head.at([(-u, v) for u, v in tail]), head.at(tail), dim)
        canvas.oval(head.one(0.0, 0.36), (0.22 * head.half, 0.15 * head.half), (196, 60, 90))
    elif style == "bun":
        canvas.oval(head.one(0.0, 1.1), (0.48 * head.half, 0.42 * head.half), dim, lit=True)
    elif style == "long":
        for u in (-0.4, 0.05, 0.45):
            canvas.line(head.at([(u * 0.7, 0.2), (u, -0.9), (u * 1.2, -2.0)]), dim, 0.07 * head.half)


def _draw_side(fig: Figure, head: Head) -> None:
    canvas, person = fig.canvas, fig.person
    r = head.half
    hair = None if hair_hidden(fig) else _hair(fig)
    if hair is not None and person.hair_style in ("ponytail", "bun"):
        if person.hair_style == "bun":
            canvas.oval(head.one(-0.72, 0.88), (0.42 * r, 0.4 * r), darker(hair, 0.12), lit=True)
        else:
            canvas.blob(head.at([(-0.6, 0.62), (-1.0, 0.76), (-1.4, 0.4), (-1.52, -0.4), (-1.36, -1.3), (-1.2, -1.5),
                                 (-1.14, -0.6), (-0.9, 0.1)]), darker(hair, 0.1), edge=True)
    man = person.sex == "man" and person.age != "child"
    chin = 0.66 if man else 0.58
    back = [(0.0, 1.0), (-0.52, 0.88), (-0.84, 0.4), (-0.82, -0.15), (-0.62, -0.5), (-0.42, -0.7), (-0.2, -0.86),
            (0.06, -0.96), (0.3, -1.0)]
    front = [(0.0, 1.0), (0.4, 0.9), (0.66, 0.5), (0.7, 0.16), (0.92, -0.2), (0.74, -0.36), (0.76, -0.56),
             (chin + 0.06, -0.84), (chin - 0.08, -1.0)]
    canvas.ribbon(head.at(back), head.at(front), fig.skin)
    canvas.oval(head.one(0.44, -0.34), (0.16 * r, 0.12 * r), mix(fig.skin, (232, 96, 90), 0.3))
    canvas.oval(head.one(0.5, 0.0), (0.075 * r, 0.13 * r), (44, 32, 32))
    canvas.line(head.at([(0.36, 0.24), (0.5, 0.28), (0.64, 0.22)]), darker(fig.skin, 0.55), 0.06 * r)
    lips = (188, 62, 66) if person.sex == "woman" and person.age != "child" else darker(fig.skin, 0.5)
    canvas.line(head.at([(0.5, -0.56), (0.6, -0.58), (0.74, -0.54)]), lips, 0.1 * r)
    if person.age == "elderly":
        canvas.line(head.at([(0.5, -0.3), (0.38, -0.5), (0.4, -0.66)]), darker(fig.skin, 0.24), 0.05 * r)
    if hair is not None:
        _draw_side_hair(fig, head, hair)
    if hair is None or person.hair_style in ("ponytail", "bun") or (person.hair_style == "short" and man):
        _ear(fig, head, -0.12, -0.06)
    if person.glasses != "none":
        _draw_side_glasses(fig, head)


def _draw_side_hair(fig: Figure, head: Head, hair: Colour) -> None:
    canvas, person = fig.canvas, fig.person
    style = person.hair_style
    if style == "long":
        outline = [(0.66, 0.62), (0.5, 1.02), (0.0, 1.19), (-0.6, 1.04), (-0.98, 0.5), (-1.02, -0.4), (-1.22, -1.4),
                   (-1.1, -2.15), (-0.7, -2.25), (-0.3, -1.7), (-0.12, -0.8), (0.02, 0.1), (0.3, 0.5)]
    elif style == "short" and person.sex == "man":
        outline = [(0.7, 0.6), (0.56, 1.04), (0.0, 1.2), (-0.6, 1.04), (-0.96, 0.5), (-0.92, -0.1), (-0.7, -0.56),
                   (-0.42, -0.5), (-0.3, -0.02), (-0.08, 0.3), (0.0, 0.0), (0.12, 0.1), (0.2, 0.44), (0.5, 0.52)]
    elif style == "short":
        outline = [(0.68, 0.5), (0.54, 1.02), (0.0, 1.2), (-0.62, 1.04), (-1.02, 0.5), (-1.06, -0.3), (-0.86, -0.84),
                   (-0.4, -0.86), (0.06, -0.7), (0.14, -0.1), (0.3, 0.34)]
    else:
        outline = [(0.6, 0.66), (0.42, 1.0), (0.0, 1.15), (-0.58, 1.0), (-0.92, 0.5), (-0.88, -0.1), (-0.62, -0.54),
                   (-0.36, -0.4), (-0.1, 0.2), (0.1, 0.34), (0.36, 0.56)]
    canvas.blob(head.at(outline), hair, edge=True)
    if person.headgear == "none":
        shine = lighter(hair, 0.16)
        canvas.mark(head.at([(0.1, 1.0), (-0.3, 0.96), (-0.6, 0.72), (-0.3, 0.84)]), shine)
    if style == "ponytail":
        canvas.oval(head.one(-0.86, 0.58), (0.14 * head.half, 0.2 * head.half), (196, 60, 90))


def _draw_side_glasses(fig: Figure, head: Head) -> None:
    canvas, r = fig.canvas, head.half
    dark = fig.person.glasses == "sunglasses"
    frame = (20, 20, 26)
    canvas.line(head.at([(0.4, 0.06), (-0.12, 0.1)]), frame, 0.11 * r)
    canvas.oval(head.one(0.56, -0.02), (0.25 * r, 0.29 * r), frame)
    canvas.oval(head.one(0.57, -0.02), (0.155 * r, 0.195 * r), (24, 26, 34) if dark else (226, 240, 248))
    if not dark:
        canvas.oval(head.one(0.57, -0.02), (0.07 * r, 0.12 * r), (44, 32, 32))


# --- headgear and scarf ---------------------------------------------------------------------------------------


def _draw_headgear(fig: Figure, head: Head) -> None:
    gear = fig.person.headgear
    if gear == "none":
        return
    colour = tint(fig.person.headgear_colour)
    {"cap": _draw_cap, "beanie": _draw_beanie, "hat": _draw_hat}[gear](fig, head, colour)


def _dome(head: Head, top: float, low: float, wide: float, shift: float = 0.0) -> tuple[Outline, Outline]:
    rows = [(0.0, top), (0.52, top - 0.1), (0.86, low + (top - low) * 0.52), (1.0, low)]
    return (
        head.at([(shift - u * wide, v) for u, v in rows]),
        head.at([(shift + u * wide, v) for u, v in rows]),
    )


def _draw_cap(fig: Figure, head: Head, colour: Colour) -> None:
    canvas = fig.canvas
    trim = detail(colour, 0.3)
    shift = -0.08 if fig.view == "side" else 0.0
    canvas.ribbon(*_dome(head, 1.3, 0.34, 0.96, shift), colour)
    if fig.view == "front":
        canvas.line(head.at([(0.0, 1.26), (0.0, 0.5)]), trim, 0.05 * head.half)
        canvas.blob(head.at([(-0.92, 0.42), (-0.5, 0.56), (0.0, 0.6), (0.5, 0.56), (0.92, 0.42), (0.86, 0.2),
                             (0.45, 0.16), (0.0, 0.14), (-0.45, 0.16), (-0.86, 0.2)]), trim, edge=True)
    elif fig.view == "back":
        hair = fig.skin if hair_hidden(fig) else _hair(fig)
        canvas.mark(head.at([(-0.3, 0.36), (-0.26, 0.56), (0.0, 0.66), (0.26, 0.56), (0.3, 0.36)]), hair)
        canvas.line(head.at([(-0.92, 0.38), (0.0, 0.34), (0.92, 0.38)]), trim, 0.12 * head.half)
    else:
        canvas.blob(head.at([(0.6, 0.5), (1.1, 0.42), (1.5, 0.24), (1.54, 0.14), (1.1, 0.2), (0.5, 0.26)]), trim,
                    edge=True)
        canvas.line(head.at([(-1.0, 0.4), (0.0, 0.34), (0.8, 0.4)]), trim, 0.07 * head.half)
    canvas.oval(head.one(shift, 1.3), (0.1 * head.half, 0.07 * head.half), trim)


def _draw_beanie(fig: Figure, head: Head, colour: Colour) -> None:
    canvas = fig.canvas
    trim = detail(colour, 0.3)
    shift, low = (-0.1, 0.24) if fig.view == "side" else (0.0, 0.26)
    canvas.ribbon(*_dome(head, 1.48, low + 0.1, 0.95, shift), colour)
    for u in (-0.55, -0.18, 0.18, 0.55):
        canvas.line(head.at([(shift + u * 0.5, 1.34), (shift + u, 0.6)]), trim, 0.05 * head.half)
    left = [(-1.02 + shift, low), (-1.06 + shift, low + 0.18), (-1.0 + shift, low + 0.38)]
    right = [(1.02 + shift, low), (1.06 + shift, low + 0.18), (1.0 + shift, low + 0.38)]
    canvas.ribbon(head.at(left), head.at(right), trim)
    canvas.oval(head.one(shift, 1.56), (0.24 * head.half, 0.22 * head.half), lighter(colour, 0.3), lit=True)


def _draw_hat(fig: Figure, head: Head, colour: Colour) -> None:
    canvas = fig.canvas
    trim = detail(colour, 0.5)
    shift = -0.05 if fig.view == "side" else 0.0
    rows = [(0.46, 1.5), (0.72, 1.42), (0.8, 0.9), (0.86, 0.5)]
    canvas.ribbon(head.at([(shift - u, v) for u, v in rows]), head.at([(shift + u, v) for u, v in rows]), colour)
    canvas.mark(head.at([(shift - 0.84, 0.82), (shift + 0.84, 0.82), (shift + 0.88, 0.56), (shift - 0.88, 0.56)]), trim,
                smooth=False)
    brim = [(shift + 1.62 * math.cos(a), 0.5 + 0.2 * math.sin(a)) for a in (math.pi * k / 6 for k in range(12))]
    canvas.blob(head.at(brim), mix(colour, trim, 0.25), edge=True)
    canvas.mark(head.at([(shift - 0.84, 0.78), (shift + 0.84, 0.78), (shift + 0.86, 0.58), (shift, 0.5),
                         (shift - 0.86, 0.58)]), trim, smooth=False)
    canvas.shadow(head.at([(-0.7, 0.3), (0.7, 0.3), (0.66, 0.06), (-0.66, 0.06)]), 128)


def draw_scarf(fig: Figure) -> None:
    """A scarf around the neck; its end hangs down in front or behind."""
    person, b, canvas = fig.person, fig.body, fig.canvas
    if person.scarf == "none":
        return
    colour = tint(person.scarf)
    trim = detail(colour, 0.3)
    w, y = b.neck * 1.75, b.shoulder_y + 0.026 * b.height
    if fig.view == "back" and person.hair_style == "long":
        w = b.head * 0.64  # worn over the hair
    x = fig.pose.spine(y) + (0.006 if fig.view == "side" else 0.0)
    long = 0.17 * b.height
    if fig.view != "back":
        start = x + (0.35 * w if fig.view == "front" else b.bust * 0.62)
        end = start + (0.3 * w if fig.view == "front" else 0.01)
        canvas.limb([(start, y - 0.02), ((start + end) / 2 + 0.006, y - long * 0.5), (end, y - long)],
                    (0.02 * b.width, 0.024 * b.width, 0.026 * b.width), colour, caps=(False, False))
        for number in range(3):
            level = y - long * (0.55 + 0.17 * number)
            at = start + (end - start) * (0.55 + 0.17 * number) + 0.004
            canvas.line([(at - 0.024 * b.width, level), (at + 0.024 * b.width, level - 0.003)], trim, 0.01)
    left = [(x - w * 0.86, y + 0.026), (x - w * 1.06, y), (x - w * 0.92, y - 0.034)]
    right = [(x + w * 0.86, y + 0.026), (x + w * 1.06, y), (x + w * 0.92, y - 0.034)]
    canvas.ribbon(left, right, colour)
    canvas.line([(x - w * 0.96, y + 0.012), (x, y - 0.006), (x + w * 0.96, y + 0.006)], trim, 0.008)
    canvas.line([(x - w * 0.8, y - 0.024), (x + w * 0.3, y - 0.02)], trim, 0.007)
