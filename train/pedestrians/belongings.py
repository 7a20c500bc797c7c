"""Bags and carried things of a drawn person."""

from __future__ import annotations

from typing import Final

from train.pedestrians.anatomy import Arm, held_in_right
from train.pedestrians.canvas import Colour, darker, detail, lighter, luminance
from train.pedestrians.figure import Figure
from train.pedestrians.palette import tint

# Coordinates read better in rows than one a line.
# fmt: off

UMBRELLA: Final[Colour] = (112, 62, 152)
"""No garment is violet, so an umbrella is not taken for one."""
BOOK: Final[Colour] = (20, 142, 150)
METAL: Final[Colour] = (168, 172, 180)


def _bag(fig: Figure) -> Colour:
    return tint(fig.person.bag_colour, fig.person.shade[3])


def _seam(colour: Colour) -> Colour:
    return detail(colour, 0.42)


def _bag_arm(fig: Figure) -> Arm:
    return fig.pose.right_arm if fig.person.bag == "handbag" else fig.pose.left_arm


def draw_bag_behind(fig: Figure) -> None:
    """The parts of a bag that the body covers."""
    bag, b, canvas = fig.person.bag, fig.body, fig.canvas
    w, h = b.width, b.height
    top = b.shoulder_y - 0.01 * h
    if bag == "suitcase":
        _draw_suitcase(fig)
    elif bag == "backpack" and fig.view == "front":
        # Its sides look out behind the arms.
        half = b.shoulder + 0.012
        canvas.blob([(-half, top - 0.09 * h), (-half * 0.7, top + 0.004), (half * 0.7, top + 0.004),
                     (half, top - 0.09 * h), (half, top - 0.24 * h), (half * 0.7, top - 0.29 * h),
                     (-half * 0.7, top - 0.29 * h), (-half, top - 0.24 * h)], darker(_bag(fig), 0.15), edge=True)
    elif bag == "backpack" and fig.view == "side":
        _draw_pack_side(fig)
    elif bag == "shoulder bag" and fig.view == "side" and not fig.pose.right_arm.front:
        # On the far hip: it looks out behind the back.
        x, y = -b.seat - 0.026 * w, b.hip_y
        _draw_satchel(fig, x, y, 0.062)


def _draw_pack_side(fig: Figure) -> None:
    b, canvas, colour = fig.body, fig.canvas, _bag(fig)
    w, h, spine = b.width, b.height, fig.pose.spine
    top = b.shoulder_y - 0.005 * h
    depth = 0.105 * w
    rows = [(top, 0.45), (top - 0.05 * h, 0.86), (top - 0.14 * h, 1.0), (top - 0.24 * h, 1.0), (top - 0.285 * h, 0.7)]
    inner = [(spine(y) - b.back * 0.6, y) for y, _ in rows]
    outer = [(spine(y) - b.back * 0.75 - depth * share, y) for y, share in rows]
    canvas.ribbon(outer, inner, colour)
    pocket = [(outer[3][0] + 0.002, top - 0.15 * h), (outer[3][0] - 0.02 * w, top - 0.2 * h),
              (outer[3][0] + 0.004, top - 0.26 * h), (outer[3][0] + 0.05 * w, top - 0.265 * h),
              (outer[3][0] + 0.052 * w, top - 0.16 * h)]
    canvas.blob(pocket, _seam(colour), edge=True)


def draw_bag_before(fig: Figure) -> None:
    """Straps and bags that lie on the trunk, before the near arm is drawn."""
    person, b, canvas = fig.person, fig.body, fig.canvas
    if person.bag == "backpack":
        _draw_straps(fig)
    elif person.bag == "shoulder bag":
        colour = _bag(fig)
        w, h = b.width, b.height
        wide = 0.017 * w
        if fig.view == "side":
            x, top = fig.pose.spine(b.shoulder_y), b.shoulder_y + 0.012 * h
            near = fig.pose.right_arm.front
            if near:
                hip_x = -b.seat * 0.25
                canvas.limb([(x + 0.012, top - 0.02), (x - b.back * 0.1, b.waist_y + 0.05), (hip_x, b.hip_y + 0.02)],
                            (wide / 2, wide / 2, wide / 2), _seam(colour), caps=(False, False))
                _draw_satchel(fig, hip_x, b.hip_y - 0.005, 0.066)
            else:
                canvas.limb([(x + 0.01, top), (x - b.back * 0.5, b.shoulder_y - 0.1 * h),
                             (x - b.back * 1.0, b.waist_y + 0.02)], (wide / 2,) * 3, colour, caps=(False, False))
                canvas.limb([(x + 0.01, top), (x + b.bust * 0.6, b.shoulder_y - 0.09 * h),
                             (x + b.bust * 0.95, b.shoulder_y - 0.16 * h)], (wide / 2,) * 3, colour,
                            caps=(False, False))
        else:
            side = -1.0 if fig.view == "front" else 1.0
            hip = (side * (b.hip + 0.012), b.hip_y + 0.01)
            canvas.limb([(-side * b.shoulder * 0.62, b.shoulder_y + 0.008 * h), (0.0, b.waist_y + 0.06 * h), hip],
                        (wide / 2, wide / 2, wide / 2), colour, caps=(False, False))


def _draw_satchel(fig: Figure, x: float, y: float, half: float) -> None:
    """A flat bag with a flap, its upper edge at `y`; `half` its half width."""
    canvas, w, colour = fig.canvas, fig.body.width, _bag(fig)
    half, deep = half * w, 0.105 * w
    canvas.ribbon([(x - half, y), (x - half * 1.04, y - deep * 0.55), (x - half * 0.9, y - deep)],
                  [(x + half, y), (x + half * 1.04, y - deep * 0.55), (x + half * 0.9, y - deep)], colour)
    canvas.blob([(x - half * 1.03, y + 0.004), (x + half * 1.03, y + 0.004), (x + half * 0.98, y - deep * 0.42),
                 (x, y - deep * 0.6), (x - half * 0.98, y - deep * 0.42)], _seam(colour), smooth=False, edge=True)
    canvas.oval((x, y - deep * 0.56), (0.008 * w, 0.008 * w), (238, 208, 120))


def _draw_straps(fig: Figure) -> None:
    b, canvas, colour = fig.body, fig.canvas, _bag(fig)
    h, w = b.height, b.width
    r = 0.0145 * w
    if fig.view == "front":
        for side in (-1, 1):
            x = side * b.shoulder * 0.58
            canvas.limb([(x * 0.98, b.shoulder_y + 0.01 * h), (x * 1.04, b.shoulder_y - 0.08 * h),
                         (x * 1.22, b.shoulder_y - 0.165 * h)], (r, r, r * 0.9), colour, caps=(False, False))
    elif fig.view == "side":
        x = fig.pose.spine(b.shoulder_y)
        canvas.limb([(x - 0.012, b.shoulder_y + 0.014 * h), (x + b.bust * 0.62, b.shoulder_y - 0.03 * h),
                     (x + b.bust * 0.72, b.shoulder_y - 0.1 * h), (x - 0.004, b.shoulder_y - 0.19 * h)],
                    (r * 0.9,) * 4, colour, caps=(False, False))
    else:
        _draw_pack_back(fig, colour)


def _draw_pack_back(fig: Figure, colour: Colour) -> None:
    b, canvas = fig.body, fig.canvas
    h, w = b.height, b.width
    top = b.shoulder_y + 0.004 * h
    half = min(0.09 * w, b.shoulder * 0.86)
    rows = [(0.4, 0.0), (0.84, -0.03), (1.0, -0.11), (1.03, -0.22), (0.92, -0.285)]
    canvas.ribbon([(-half * x, top + y * h) for x, y in rows], [(half * x, top + y * h) for x, y in rows], colour)
    pocket = [(0.78, -0.16), (0.82, -0.2), (0.7, -0.26)]
    canvas.ribbon([(-half * x, top + y * h) for x, y in pocket], [(half * x, top + y * h) for x, y in pocket],
                  _seam(colour))
    canvas.line([(-half * 0.78, top - 0.075 * h), (0.0, top - 0.055 * h), (half * 0.78, top - 0.075 * h)],
                _seam(colour), 0.009)
    canvas.line([(-0.018, top), (-0.014, top + 0.022), (0.014, top + 0.022), (0.018, top)], _seam(colour), 0.009)


def draw_bag_in_hand(fig: Figure) -> None:
    """Handbag in the right hand, satchel on the hip: what hangs in front of arm and leg."""
    person, b, canvas = fig.person, fig.body, fig.canvas
    colour, w = _bag(fig), b.width
    if person.bag == "shoulder bag" and fig.view != "side":
        side = -1.0 if fig.view == "front" else 1.0
        _draw_satchel(fig, side * (b.hip - 0.004), b.hip_y + 0.012, 0.058)
    if person.bag != "handbag" or (fig.view == "side" and not fig.pose.right_arm.front):
        return
    x, y = _bag_arm(fig).wrist
    y -= 0.026 * b.height
    half = 0.062 * w
    canvas.line([(x - half * 0.55, y - 0.058 * w), (x - half * 0.42, y - 0.012), (x, y + 0.004),
                 (x + half * 0.42, y - 0.012), (x + half * 0.55, y - 0.058 * w)], _seam(colour), 0.013)
    top = y - 0.05 * w
    canvas.ribbon([(x - half * 0.74, top), (x - half * 0.94, top - 0.04 * w), (x - half * 1.04, top - 0.085 * w)],
                  [(x + half * 0.74, top), (x + half * 0.94, top - 0.04 * w), (x + half * 1.04, top - 0.085 * w)],
                  colour)
    canvas.line([(x - half * 0.8, top - 0.012 * w), (x + half * 0.8, top - 0.012 * w)], _seam(colour), 0.012)
    canvas.oval((x, top - 0.03 * w), (0.0095 * w, 0.0095 * w), (238, 208, 120))


def _draw_suitcase(fig: Figure) -> None:
    b, canvas, colour = fig.body, fig.canvas, _bag(fig)
    w, ground = b.width, fig.pose.ground
    arm = fig.pose.left_arm
    hand_x, hand_y = arm.wrist[0], arm.wrist[1] - 0.022 * b.height
    low, tall, half = ground + 0.022 * w, 0.235 * w, 0.062 * w
    if fig.view == "side":
        lean, base = 0.34, -0.215 * w
    else:
        lean, base = 0.0, arm.side * (b.hip + 0.052 * w)

    def at(x: float, y: float) -> tuple[float, float]:
        # The case leans towards the hand that pulls it.
        return base + x + lean * y, low + y

    for side in (-1, 1):
        grip = hand_x + side * (0.005 if lean else 0.012)
        canvas.line([at(side * half * 0.42, tall), (grip, hand_y)], METAL, 0.011)
    canvas.line([(hand_x - 0.02, hand_y + 0.004), (hand_x + 0.02, hand_y + 0.004)], (50, 50, 56), 0.016)
    for side in (-1, 1):
        canvas.oval(at(side * half * 0.74, -0.008), (0.0165 * w, 0.0165 * w), (34, 34, 38), lit=True)
        canvas.oval(at(side * half * 0.74, -0.008), (0.006 * w, 0.006 * w), METAL)
    rows = [(0.86, tall), (1.0, tall * 0.94), (1.0, tall * 0.5), (1.0, tall * 0.06), (0.86, 0.0)]
    canvas.ribbon([at(-half * x, y) for x, y in rows], [at(half * x, y) for x, y in rows], colour)
    for share in (-0.5, 0.0, 0.5):
        canvas.line([at(half * share, tall * 0.9), at(half * share, tall * 0.1)], _seam(colour), 0.009)


def draw_carried(fig: Figure) -> None:
    """Phone, cup, book or umbrella in the hand; from behind the body hides all but the umbrella."""
    thing = fig.person.carried
    if thing == "none" or (fig.view == "back" and thing != "umbrella"):
        return
    b, canvas = fig.body, fig.canvas
    arm = fig.pose.right_arm if held_in_right(fig.person) else fig.pose.left_arm
    x, y = arm.wrist
    w = b.width
    if thing == "umbrella":
        _draw_umbrella(fig, arm)
        return
    dx = 0.018 * w if fig.view == "side" else -arm.side * 0.01 * w
    if thing == "cup":
        cx, cy = x + dx, y + 0.012 * w
        canvas.ribbon([(cx - 0.0235 * w, cy + 0.058 * w), (cx - 0.017 * w, cy - 0.022 * w)],
                      [(cx + 0.0235 * w, cy + 0.058 * w), (cx + 0.017 * w, cy - 0.022 * w)], (250, 250, 246),
                      straight=True)
        canvas.mark([(cx - 0.0225 * w, cy + 0.036 * w), (cx + 0.0225 * w, cy + 0.036 * w),
                     (cx + 0.0185 * w, cy - 0.002), (cx - 0.0185 * w, cy - 0.002)], (150, 104, 62), smooth=False)
        canvas.mark([(cx - 0.027 * w, cy + 0.055 * w), (cx - 0.022 * w, cy + 0.07 * w), (cx + 0.022 * w, cy + 0.07 * w),
                     (cx + 0.027 * w, cy + 0.055 * w)], (60, 50, 48), smooth=False)
    elif thing == "phone":
        cx, cy = x + dx * 1.2, y + 0.03 * w
        lean = 0.012 * w if fig.view == "side" else -arm.side * 0.006 * w
        for grow, colour in ((1.0, (24, 24, 30)), (0.72, (120, 226, 255))):
            half, tall = 0.026 * w * grow, 0.05 * w * (grow * 0.92 + 0.08)
            corners = [(cx - half + lean, cy + tall), (cx + half + lean, cy + tall), (cx + half - lean, cy - tall),
                       (cx - half - lean, cy - tall)]
            if grow == 1.0:
                canvas.blob(corners, colour, smooth=False, edge=True)
            else:
                canvas.mark(corners, colour, smooth=False)
    else:
        cx, cy = x + dx * (1.6 if fig.view == "side" else 0.4), y + 0.028 * w
        half, tall = (0.044 if fig.view == "side" else 0.056) * w, 0.066 * w
        canvas.blob([(cx - half, cy + tall), (cx + half, cy + tall), (cx + half, cy - tall), (cx - half, cy - tall)],
                    (250, 248, 238), smooth=False, edge=True)
        canvas.mark([(cx - half, cy + tall), (cx + half * 0.8, cy + tall * 0.94), (cx + half * 0.8, cy - tall * 0.82),
                     (cx - half, cy - tall)], BOOK, smooth=False)
        canvas.mark([(cx - half * 0.6, cy + tall * 0.6), (cx + half * 0.45, cy + tall * 0.58),
                     (cx + half * 0.45, cy + tall * 0.2), (cx - half * 0.6, cy + tall * 0.2)], (250, 248, 238),
                    smooth=False)
    skin = darker(fig.skin, 0.08) if luminance(fig.skin) > 100 else lighter(fig.skin, 0.06)
    for step in (0.0, 0.012, 0.024):
        # Fingers around it.
        canvas.oval((x + dx * 0.3, y - 0.012 * w + step), (0.014 * w, 0.0075 * w), skin)


def _draw_umbrella(fig: Figure, arm: Arm) -> None:
    b, canvas = fig.body, fig.canvas
    x, y = arm.wrist[0], arm.wrist[1] - 0.018 * b.height
    w = b.width
    long = min(0.37 * w, y - fig.pose.ground - 0.02)
    slant = 0.3 if fig.view == "side" else arm.side * 0.1
    tip = (x + slant * long, y - long)

    def along(share: float) -> tuple[float, float]:
        return x + (tip[0] - x) * share, y + (tip[1] - y) * share

    canvas.line([(x - slant * 0.04 + 0.034 * w, y + 0.03 * w), (x + 0.03 * w, y + 0.052 * w),
                 (x + 0.004, y + 0.052 * w), (x - slant * 0.03, y + 0.03 * w), along(0.14)], (112, 70, 36), 0.014)
    canvas.limb([along(0.12), along(0.3), along(0.7), along(0.94)], (0.017 * w, 0.031 * w, 0.023 * w, 0.007 * w),
                UMBRELLA, caps=(False, False))
    canvas.line([along(0.18), along(0.9)], lighter(UMBRELLA, 0.34), 0.008)
    left, right = along(0.34), along(0.39)
    canvas.line([(left[0] - 0.03 * w, left[1]), (right[0] + 0.03 * w, right[1])], darker(UMBRELLA, 0.45), 0.012)
    canvas.line([along(0.92), tip], METAL, 0.01)
    canvas.oval((x, y + 0.008), (0.016 * w, 0.016 * w), fig.skin)
