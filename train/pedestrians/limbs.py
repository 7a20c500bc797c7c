"""Legs, shoes, arms of a drawn person, and the clothes on them."""

from __future__ import annotations

import math

from train.pedestrians.anatomy import Arm, Leg, Point
from train.pedestrians.canvas import Cloth, Colour, darker, detail, lighter, luminance
from train.pedestrians.figure import Figure, Outline, band, between
from train.pedestrians.palette import SOLE, tint, upper_cloth

# Coordinates read better in rows than one a line.
# fmt: off


def draw_legs(fig: Figure) -> None:
    """Both legs with trousers or bare, shoes, and what joins them at the hip."""
    far, near = fig.legs
    for leg in (far, near):
        _draw_leg(fig, leg, dim=fig.view == "side" and leg is far)
    if _under_coat(fig):
        return
    if fig.person.lower in ("trousers", "jeans", "shorts"):
        _draw_seat(fig)
    elif fig.person.lower == "skirt":
        _draw_skirt(fig)


def _under_coat(fig: Figure) -> bool:
    """Whether a coat that is closed on this side covers the whole lower garment, even in a wide step."""
    return fig.person.outer == "coat" and fig.view != "front" and fig.person.lower in ("shorts", "skirt")


def _draw_leg(fig: Figure, leg: Leg, *, dim: bool) -> None:
    b, person, canvas = fig.body, fig.person, fig.canvas
    skin = darker(fig.skin, 0.16) if dim else fig.skin
    cloth = tint(person.lower_colour, person.shade[2])
    cloth = darker(cloth, 0.2) if dim else cloth
    hip, knee, ankle = leg.hip, leg.knee, leg.ankle
    calf = between(knee, ankle, 0.36)
    bare = person.lower in ("shorts", "skirt", "dress")
    if bare:
        chain = (hip, between(hip, knee, 0.8), knee, between(knee, ankle, 0.14), calf, ankle)
        radii = (b.thigh, b.thigh * 0.4 + b.calf * 0.62, b.calf * 1.02, b.calf, b.calf * 1.08, b.calf * 0.62)
        canvas.limb(chain, radii, skin, caps=(False, False))
    _draw_shoe(fig, leg, skin, dim=dim)
    if person.lower == "shorts" and not _under_coat(fig):
        end = between(hip, knee, 0.82)
        canvas.limb((hip, between(hip, knee, 0.4), end), (b.thigh * 1.1, b.thigh * 1.16, b.thigh * 1.14), cloth,
                    caps=(False, False))
        band(fig, hip, knee, (0.76, 0.8), b.thigh * 1.1, detail(cloth))
    if not bare:
        jeans = person.lower == "jeans"
        wide = 0.045 * b.width * (0.75 + 0.25 * b.calf / 0.031)
        hem = wide * (0.68 if jeans else 0.86)
        low = between(knee, ankle, 1.0 if jeans else 1.1)
        bend = max(b.calf * 1.14, wide * (0.86 if jeans else 0.92))
        chain = (hip, between(hip, knee, 0.8), knee, between(knee, low, 0.22), between(knee, low, 0.7), low)
        radii = (b.thigh * 1.06, bend * 0.8 + b.thigh * 0.22, bend, bend * 0.96, hem, hem)
        canvas.limb(chain, radii, cloth, caps=(False, False))
        if jeans:
            _draw_denim(fig, leg, hem, cloth)
        elif fig.view != "back":
            crease = [between(hip, knee, 0.5), knee, between(knee, ankle, 0.9)]
            canvas.line(crease, detail(cloth, 0.16), 0.005)
    if person.shoes == "boots":
        _draw_boot_shaft(fig, leg, dim=dim)


def _draw_denim(fig: Figure, leg: Leg, hem: float, cloth: Colour) -> None:
    canvas, b = fig.canvas, fig.body
    for start, end, share in ((leg.hip, leg.knee, 0.62), (leg.knee, leg.ankle, 0.32)):
        # Worn light where the leg bends.
        x, y = between(start, end, share)
        canvas.shadow([(x - b.thigh * 0.4, y), (x, y + 0.07), (x + b.thigh * 0.4, y), (x, y - 0.07)], 176)
    for side in (-1.0, 1.0):
        seam = [(x + side * r, y) for (x, y), r in ((leg.hip, b.thigh * 0.92), (leg.knee, hem * 1.0))]
        canvas.line([*seam, (leg.ankle[0] + side * hem * 0.86, leg.ankle[1])], detail(cloth, 0.3), 0.005)
    if fig.person.shoes != "boots":
        turned = lighter(cloth, 0.62) if luminance(cloth) < 170 else darker(cloth, 0.3)
        canvas.limb((between(leg.knee, leg.ankle, 0.86), between(leg.knee, leg.ankle, 1.01)), (hem * 1.16, hem * 1.2),
                    turned, caps=(False, False))


def _draw_seat(fig: Figure) -> None:
    b, canvas, person = fig.body, fig.canvas, fig.person
    cloth = tint(person.lower_colour, person.shade[2])
    if fig.view == "side":
        rows = [(b.waist_y - 0.05, b.seat * 0.82, b.belly * 0.85), (b.hip_y, b.seat * 0.98, b.belly * 0.86)]
        rows += [(b.crotch_y + 0.01, b.seat * 0.92, max(b.thigh, b.belly * 0.72)),
                 (b.crotch_y - 0.045, b.thigh * 1.06, b.thigh * 1.04)]
        canvas.ribbon([(-back, y) for y, back, _ in rows], [(front, y) for y, _, front in rows], cloth, edge=False)
        pocket = [(b.seat * 0.1, b.hip_y), (b.seat * 0.25, b.hip_y - 0.05)]
        canvas.line(pocket, detail(cloth), 0.006)
        return
    outer = [(b.waist * 0.96, b.waist_y - 0.05), (b.hip * 0.99, b.hip_y), (b.hip * 0.99, b.crotch_y - 0.01)]
    canvas.ribbon([(-x, y) for x, y in outer], outer, cloth, edge=False)
    # The fork: both thighs meet below it.
    canvas.line([(0.0, b.hip_y), (0.0, b.crotch_y - 0.03)], detail(cloth, 0.34), 0.006)
    if person.lower == "jeans":
        stitch = detail(cloth, 0.36)
        for side in (-1, 1):
            if fig.view == "front":
                canvas.line([(side * b.hip * 0.45, b.hip_y + 0.005), (side * b.hip * 0.6, b.hip_y - 0.026),
                             (side * b.hip * 0.96, b.hip_y - 0.032)], stitch, 0.006)
            else:
                x, y, w = side * b.hip * 0.48, b.hip_y - 0.022, b.hip * 0.28
                canvas.line([(x - w, y + 0.022), (x - w, y - 0.026), (x, y - 0.04), (x + w, y - 0.026),
                             (x + w, y + 0.022), (x - w, y + 0.022)], stitch, 0.006, smooth=False)


def _draw_skirt(fig: Figure) -> None:
    b, canvas, person = fig.body, fig.canvas, fig.person
    cloth = tint(person.lower_colour, person.shade[2])
    hem = b.knee_y + 0.055 * b.height
    if fig.view == "side":
        rows = [(b.waist_y - 0.02, b.back * 0.78, b.belly * 0.95), (b.hip_y, b.seat, b.belly * 0.98)]
        rows += [(b.crotch_y - 0.02, b.seat * 1.1, b.belly * 1.15), (hem, b.seat * 1.2, b.belly * 1.45)]
        left, right = [(-back, y) for y, back, _ in rows], [(front, y) for y, _, front in rows]
    else:
        right = [(b.waist, b.waist_y - 0.02), (b.hip * 1.02, b.hip_y), (b.hip * 1.13, b.crotch_y - 0.02),
                 (b.hip * 1.3, hem)]
        left = [(-x, y) for x, y in right]
    canvas.ribbon(left, right, cloth)
    for share in (0.25, 0.5, 0.75):
        low, high = between(left[3], right[3], share), between(left[1], right[1], share)
        canvas.line([low, between(low, high, 0.75)], detail(cloth, 0.2), 0.006)
    canvas.line([left[3], right[3]], detail(cloth, 0.3), 0.008)


def _draw_shoe(fig: Figure, leg: Leg, skin: Colour, *, dim: bool) -> None:
    person, canvas = fig.person, fig.canvas
    colour = tint(person.shoe_colour)
    colour = darker(colour, 0.15) if dim else colour
    outline = _side_foot if fig.view == "side" else _front_foot
    kind = person.shoes
    trim = detail(colour, 0.5)
    sole = (70, 66, 70) if luminance(colour) > 200 else SOLE
    if kind == "sandals":
        canvas.blob(outline(fig, leg, (0.0, 1.0), 0.9), skin, edge=True)
        canvas.blob(outline(fig, leg, (-0.16, 0.16), 1.02), darker(colour, 0.12))
        for low, high in ((0.24, 0.52), (0.7, 0.96)):
            canvas.mark(outline(fig, leg, (low, high), 0.98), colour)
        return
    canvas.blob(outline(fig, leg, (0.0, 1.0), 1.12 if kind == "sneakers" else 1.0), colour, edge=True)
    if kind == "sneakers":
        canvas.mark(outline(fig, leg, (-0.12, 0.26), 1.16), sole)
        canvas.mark(outline(fig, leg, (0.55, 0.78), 0.7), sole)
    elif kind == "boots":
        canvas.mark(outline(fig, leg, (-0.14, 0.14), 1.08), trim if luminance(colour) > 60 else (92, 84, 80))
    else:
        canvas.mark(outline(fig, leg, (-0.08, 0.08), 1.0), (26, 24, 26) if luminance(colour) > 60 else (104, 96, 92))
        canvas.mark(outline(fig, leg, (0.46, 0.62), 0.42), lighter(colour, 0.5))


def _front_foot(fig: Figure, leg: Leg, rows: tuple[float, float], wide: float) -> Outline:
    """Part of a foot seen from the front: `rows` 0 is the ground, 1 the instep; `wide` scales the width."""
    b = fig.body
    x, y = leg.ankle
    half = 0.0285 * b.width * leg.size * wide * (0.85 + 0.15 * b.calf / 0.031)
    toe = leg.side * 0.004
    high = 0.062 * b.width * leg.size
    base = y - b.ankle_y * 1.05 * leg.size + (0.0 if fig.view == "front" else 0.008)
    low, top = base + high * rows[0], base + high * rows[1]

    def width(share: float) -> float:
        return half * (1.06 - 0.5 * max(0.0, share - 0.15) ** 1.3)

    w0, w1 = width(rows[0]), width(rows[1])
    mid, wm = (low + top) / 2, width((rows[0] + rows[1]) / 2)
    return [
        (x + toe - w0 * 0.9, low), (x + toe, low - high * 0.03), (x + toe + w0 * 0.9, low), (x + toe + wm, mid),
        (x + w1, top), (x, top + high * 0.03), (x - w1, top), (x + toe - wm, mid),
    ]


def _side_foot(fig: Figure, leg: Leg, rows: tuple[float, float], wide: float) -> Outline:
    """Part of a foot in profile, turned by the leg's tilt; arguments as in `_front_foot`."""
    b = fig.body
    long, high = 0.128 * b.width * (0.9 + 0.1 * wide), 0.056 * b.width * (0.7 + 0.3 * wide)
    cos, sin = math.cos(leg.tilt), math.sin(leg.tilt)

    def turn(along: float, up: float) -> Point:
        # Heel at 0, toe at 1; the ankle stands over 0.27.
        u, v = (along - 0.27) * long, up * high - b.ankle_y * 1.05
        return leg.ankle[0] + u * cos - v * sin, leg.ankle[1] + u * sin + v * cos

    def reach(up: float) -> float:
        return 1.0 - 0.58 * max(0.0, up - 0.12) ** 1.1

    low, top = rows
    mid = (low + top) / 2
    # Pumps and formal shoes taper; the others have a round toe.
    tip = 1.04 if fig.person.shoes == "dress shoes" else 1.0
    return [turn(0.0, low), turn(0.5, low - 0.03), turn(0.93 * tip * reach(low), low), turn(tip * reach(mid), mid),
            turn(reach(top) * 0.93, top), turn(0.3, top + 0.02), turn(0.02, top), turn(-0.03, mid)]


def _draw_boot_shaft(fig: Figure, leg: Leg, *, dim: bool) -> None:
    b, canvas = fig.body, fig.canvas
    colour = tint(fig.person.shoe_colour)
    colour = darker(colour, 0.15) if dim else colour
    top, low = between(leg.knee, leg.ankle, 0.42), between(leg.knee, leg.ankle, 1.04)
    radius = max(b.calf * 1.22, 0.034 * b.width)
    canvas.limb((top, between(top, low, 0.5), low), (radius, radius * 0.92, radius * 0.84), colour,
                caps=(False, False))
    band(fig, leg.knee, leg.ankle, (0.42, 0.5), radius * 1.05, detail(colour, 0.4))
    if fig.view == "front":
        canvas.line([between(top, low, 0.3), low], detail(colour, 0.4), 0.006)


def draw_arm(fig: Figure, arm: Arm) -> None:
    """One arm with its hand and sleeves."""
    b, canvas, person = fig.body, fig.canvas, fig.person
    dim = fig.view == "side" and not arm.front
    skin = darker(fig.skin, 0.16) if dim else fig.skin
    chain = (arm.shoulder, arm.elbow, arm.wrist)
    reach = math.dist(arm.elbow, arm.wrist) or 1.0
    hand = between(arm.elbow, arm.wrist, 1.0 + 0.024 * b.height / reach)
    canvas.limb((*chain, hand), (b.arm, b.arm * 0.86, b.arm * 0.62, b.arm * 0.74), skin)
    sleeves = "long" if person.outer in ("jacket", "coat") else person.sleeves
    if sleeves == "none":
        return
    cloth: Cloth | Colour
    if person.outer in ("jacket", "coat"):
        cloth, loose = tint(person.outer_colour, person.shade[1]), 1.5
    elif person.lower == "dress":
        cloth, loose = tint(person.lower_colour, person.shade[2]), 1.2
    else:
        cloth = upper_cloth(person)
        loose = {"sweater": 1.36, "hoodie": 1.44, "shirt": 1.24}.get(person.upper, 1.26)
    if dim:
        cloth = (
            Cloth(darker(cloth.colour, 0.2), cloth.pattern, darker(cloth.accent, 0.2), cloth.period, cloth.phase)
            if isinstance(cloth, Cloth)
            else darker(cloth, 0.2)
        )
    plain = cloth.colour if isinstance(cloth, Cloth) else cloth
    if sleeves == "short":
        end = between(arm.shoulder, arm.elbow, 0.72)
        canvas.limb((arm.shoulder, between(arm.shoulder, arm.elbow, 0.4), end), (b.arm * loose, b.arm * (loose + 0.04),
                    b.arm * (loose + 0.1)), cloth, caps=(True, False))
        band(fig, arm.shoulder, arm.elbow, (0.67, 0.72), b.arm * (loose + 0.06), detail(plain, 0.3))
        return
    end = between(arm.elbow, arm.wrist, 0.98)
    canvas.limb((arm.shoulder, arm.elbow, end), (b.arm * loose, b.arm * loose * 0.9, b.arm * loose * 0.74), cloth,
                caps=(True, False))
    cuff = person.outer != "none" or person.upper != "t-shirt"
    if cuff:
        band(fig, arm.elbow, arm.wrist, (0.88, 0.99), b.arm * loose * 0.78, detail(plain, 0.34))
