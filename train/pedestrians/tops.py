"""The trunk of a drawn person: neck, upper garment or dress, and the outer layer."""

from __future__ import annotations

import math

from train.pedestrians.canvas import NEUTRAL, Colour, detail, lighter, luminance
from train.pedestrians.figure import Figure, Outline, between
from train.pedestrians.palette import accent, tint, upper_cloth

# Coordinates read better in rows than one a line.
# fmt: off


def draw_upper(fig: Figure) -> None:
    """Neck, trunk with the upper garment (or the dress), and the outer layer without its sleeves."""
    b, canvas, person = fig.body, fig.canvas, fig.person
    spine = fig.pose.spine
    neck_x, nape_x = spine(b.shoulder_y), spine(b.chin_y + 0.03)
    canvas.limb([(neck_x, b.shoulder_y - 0.03), (nape_x, b.chin_y + 0.03)], (b.neck * 1.15, b.neck), fig.skin,
                caps=(False, False))
    canvas.shadow([(nape_x - b.neck, b.chin_y), (nape_x + b.neck, b.chin_y), (nape_x + b.neck, b.chin_y - 0.02),
                   (nape_x - b.neck, b.chin_y - 0.02)])
    if person.lower == "dress":
        _draw_dress(fig)
    elif person.upper == "tank top":
        _draw_tank_top(fig)
    else:
        long = {"shirt": -0.005, "sweater": 0.012, "hoodie": 0.0}.get(person.upper, 0.005)
        loose = {"shirt": 0.004, "sweater": 0.009, "hoodie": 0.013}.get(person.upper, 0.004)
        left, right = fig.trunk(loose=loose, hem=b.crotch_y + 0.03 * b.height + long)
        canvas.ribbon(left, right, upper_cloth(person))
        _draw_collar(fig, left, right)


def _draw_dress(fig: Figure) -> None:
    b, canvas, person = fig.body, fig.canvas, fig.person
    cloth = tint(person.lower_colour, person.shade[2])
    left, right = fig.trunk(loose=0.002, hem=b.hip_y)
    canvas.ribbon(left, right, cloth)
    hem = b.knee_y - 0.05 * b.height
    if fig.view == "side":
        rows = [(b.waist_y, b.back * 0.8, b.belly), (b.hip_y, b.seat * 1.08, b.belly * 1.15),
                (b.crotch_y - 0.06, b.seat * 1.3, b.belly * 1.5), (hem, b.seat * 1.45, b.belly * 2.0)]
        low, high = [(-back, y) for y, back, _ in rows], [(front, y) for y, _, front in rows]
    else:
        high = [(b.waist, b.waist_y), (b.hip * 1.08, b.hip_y), (b.hip * 1.26, b.crotch_y - 0.06), (b.hip * 1.5, hem)]
        low = [(-x, y) for x, y in high]
    canvas.ribbon(low, high, cloth, edge=False)
    for share in (0.2, 0.42, 0.6, 0.82):
        foot, top = between(low[3], high[3], share), between(low[0], high[0], share)
        canvas.line([foot, between(foot, top, 0.7)], detail(cloth, 0.2), 0.006)
    canvas.mark([low[3], high[3], (high[3][0] * 0.985, hem + 0.02), (low[3][0] * 0.985, hem + 0.02)],
                detail(cloth, 0.34), smooth=False)
    sash = [(low[0][0], b.waist_y + 0.014), (high[0][0], b.waist_y + 0.014), (high[0][0], b.waist_y - 0.012),
            (low[0][0], b.waist_y - 0.012)]
    canvas.mark(sash, detail(cloth, 0.45), smooth=False)
    if fig.view != "side":
        _draw_neckline(fig, 0.05 if fig.view == "front" else 0.02, 0.045)


def _draw_neckline(fig: Figure, deep: float, wide: float) -> None:
    """Bare skin in a round neckline; body units times the body's width."""
    b = fig.body
    top, w = b.shoulder_y + 0.024 * b.height, wide * b.width
    fig.canvas.blob(
        [(-w * 0.8, top), (-w * 0.9, top - deep * 0.5), (-w * 0.5, top - deep), (0, top - deep * 1.12),
         (w * 0.5, top - deep), (w * 0.9, top - deep * 0.5), (w * 0.8, top), (0, top + 0.01)], fig.skin)
    fig.canvas.shadow([(-b.neck, top), (b.neck, top), (b.neck * 0.8, top - 0.018), (-b.neck * 0.8, top - 0.018)])


def _draw_tank_top(fig: Figure) -> None:
    b, canvas = fig.body, fig.canvas
    hem = b.crotch_y + 0.035 * b.height
    left, right = fig.trunk(loose=0.0, hem=hem)
    canvas.ribbon(left, right, fig.skin)
    cloth = upper_cloth(fig.person)
    if fig.view == "side":
        spine, top, pit = fig.pose.spine, b.shoulder_y + 0.01, b.shoulder_y - 0.1 * b.height
        body_left = [(x - 0.003, y) for x, y in left[3:]]
        body_right = [(x + 0.003, y) for x, y in right[3:]]
        strap = [(spine(top) - 0.02, top), (spine(pit) - b.back * 1.05, pit)]
        front = [(spine(top) + 0.018, top), (spine(pit) + b.bust * 0.98, pit)]
        canvas.ribbon([*strap, *body_left], [*front, *body_right], cloth, edge=False)
        return
    strap_in, strap_out = b.shoulder * 0.40, b.shoulder * 0.64
    low = b.shoulder_y - (0.075 if fig.view == "front" else 0.045) * b.height
    pit = b.shoulder_y - 0.10 * b.height
    top = b.shoulder_y + 0.012 * b.height
    outer = [(strap_out, top), (b.shoulder * 0.66, b.shoulder_y - 0.05 * b.height), (b.shoulder * 0.92, pit)]
    edge_right = [*outer, *((x + 0.003, y) for x, y in right[4:])]
    inner = [(-strap_in, top), (-strap_in * 0.85, low + 0.02), (0.0, low - 0.005), (strap_in * 0.85, low + 0.02),
             (strap_in, top)]
    canvas.ribbon([(-x, y) for x, y in edge_right], edge_right, cloth, edge=False)
    canvas.blob([*inner, (0.0, top + 0.01)], fig.skin)


def _draw_collar(fig: Figure, left: Outline, right: Outline) -> None:
    """What distinguishes T-shirt, shirt, sweater and hoodie: neckline, collar, buttons, hems, hood, pocket."""
    b, canvas, upper = fig.body, fig.canvas, fig.person.upper
    cloth = upper_cloth(fig.person)
    trim = detail(cloth.colour, 0.34)
    h, top, view = b.height, b.shoulder_y + 0.024 * b.height, fig.view
    hem_left, hem_right = left[-1], right[-1]
    if upper in ("sweater", "hoodie"):
        rise = 0.02 * h
        canvas.blob([hem_left, hem_right, (hem_right[0] * 0.99, hem_right[1] + rise),
                     (hem_left[0] * 0.99, hem_left[1] + rise)], trim, smooth=False)
    if fig.person.pattern == "logo" and view == "front":
        _draw_logo(fig, cloth.colour)
    if upper == "t-shirt" and view != "side":
        _draw_neckline(fig, 0.034 if view == "front" else 0.008, 0.04)
    elif upper == "sweater":
        x = fig.pose.spine(top)
        canvas.limb([(x - b.neck * 1.2, top - 0.006), (x, top - (0.018 if view == "front" else 0.004)),
                     (x + b.neck * 1.2, top - 0.006)], (0.011, 0.013, 0.011), trim)
    elif upper == "shirt":
        _draw_shirt_front(fig, cloth.colour, trim)
    elif upper == "hoodie":
        _draw_hood(fig, cloth.colour, trim)


def _draw_shirt_front(fig: Figure, colour: Colour, trim: Colour) -> None:
    b, canvas = fig.body, fig.canvas
    h, top = b.height, b.shoulder_y + 0.03 * b.height
    pale = lighter(colour, 0.35) if luminance(colour) < 200 else (255, 255, 255)
    if fig.view == "side":
        x = fig.pose.spine(top)
        canvas.blob([(x - b.neck * 1.3, top + 0.006), (x + b.neck * 0.9, top), (x + b.neck * 1.6, top - 0.03),
                     (x - b.neck * 1.0, top - 0.018)], pale, smooth=False, edge=True)
        return
    if fig.view == "back":
        canvas.blob([(-b.neck * 1.3, top - 0.014), (b.neck * 1.3, top - 0.014), (b.neck * 1.1, top + 0.006),
                     (-b.neck * 1.1, top + 0.006)], pale, smooth=False, edge=True)
        return
    canvas.blob([(-b.neck * 0.9, top), (b.neck * 0.9, top), (0.0, top - 0.055 * h)], fig.skin, smooth=False)
    low = b.crotch_y + 0.03 * h
    canvas.line([(0.0, top - 0.05 * h), (0.0, low)], trim, 0.007)
    for number in range(4):
        y = top - (0.085 + 0.07 * number) * h
        canvas.oval((0.011, y), (0.0065, 0.0065), pale if luminance(colour) < 150 else (70, 70, 80))
    for side in (-1, 1):
        canvas.blob([(side * b.neck * 1.0, top + 0.004), (side * b.neck * 1.75, top - 0.016 * h),
                     (side * b.neck * 1.05, top - 0.058 * h), (side * 0.003, top - 0.048 * h)], pale, smooth=False,
                    edge=True)


def _draw_hood(fig: Figure, colour: Colour, trim: Colour) -> None:
    b, canvas = fig.body, fig.canvas
    h, w, top = b.height, b.width, b.shoulder_y + 0.03 * b.height
    if fig.view == "side":
        x = fig.pose.spine(top)
        canvas.blob([(x + 0.026 * w, top - 0.012), (x - 0.01 * w, top + 0.014), (x - 0.058 * w, top + 0.012),
                     (x - 0.082 * w, top - 0.03), (x - 0.06 * w, top - 0.065), (x - 0.02 * w, top - 0.04)], trim,
                    edge=True)
        return
    if fig.view == "back":
        canvas.blob([(-0.05 * w, top), (0.05 * w, top), (0.064 * w, top - 0.03 * h), (0.04 * w, top - 0.09 * h),
                     (0.0, top - 0.105 * h), (-0.04 * w, top - 0.09 * h), (-0.064 * w, top - 0.03 * h)], trim,
                    edge=True)
        return
    canvas.blob([(-0.045 * w, top + 0.004), (0.045 * w, top + 0.004), (0.06 * w, top - 0.022), (0.03 * w, top - 0.05),
                 (0.0, top - 0.06), (-0.03 * w, top - 0.05), (-0.06 * w, top - 0.022)], trim, edge=True)
    _draw_neckline(fig, 0.03, 0.028)
    string = accent(colour)
    for side in (-1, 1):
        canvas.line([(side * 0.018 * w, top - 0.05), (side * 0.021 * w, top - 0.125 * h)], string, 0.008)
    low = b.crotch_y + 0.055 * h
    canvas.blob([(-0.062 * w, low), (0.062 * w, low), (0.05 * w, low + 0.05 * h), (0.038 * w, low + 0.068 * h),
                 (-0.038 * w, low + 0.068 * h), (-0.05 * w, low + 0.05 * h)], trim, smooth=False)


def _draw_logo(fig: Figure, colour: Colour) -> None:
    b = fig.body
    y, r = b.shoulder_y - 0.115 * b.height, 0.036 * b.width
    fig.canvas.oval((0.0, y), (r, r), accent(colour))
    points = []
    for number in range(10):
        radius = r * (0.86 if number % 2 == 0 else 0.36)
        angle = math.pi * number / 5
        points.append((radius * math.sin(angle), y + radius * math.cos(angle)))
    fig.canvas.mark(points, colour, smooth=False)


def draw_outer(fig: Figure) -> None:
    """Jacket, coat or padded vest over the upper body; open in front, so that the upper garment shows."""
    person, b, canvas = fig.person, fig.body, fig.canvas
    if person.outer == "none":
        return
    cloth = tint(person.outer_colour, person.shade[1])
    seam = detail(cloth, 0.4)
    coat, vest = person.outer == "coat", person.outer == "vest"
    hem = b.knee_y + 0.035 * b.height if coat else (b.hip_y + 0.0 if vest else b.crotch_y + 0.012)
    left, right = fig.trunk(loose=0.016 if vest else 0.013, hem=hem, flare=0.024 if coat else 0.0)
    if fig.view == "front":
        _draw_open_front(fig, right, cloth)
    elif fig.view == "back":
        canvas.ribbon(left, right, cloth)
        if coat:
            canvas.line([(0.0, b.crotch_y), (0.0, hem)], seam, 0.007)
            canvas.line([(-b.waist, b.waist_y - 0.01), (b.waist, b.waist_y - 0.01)], seam, 0.012)
    else:
        canvas.ribbon(left, right, cloth)
        front = [between(a, z, 0.9) for a, z in zip(left[2:], right[2:], strict=True)]
        canvas.line(front, seam, 0.007)
    if vest:
        _draw_quilting(fig, left, right, seam)
    if not vest and fig.view != "front":
        canvas.line([left[-1], right[-1]], seam, 0.01)
    _draw_outer_collar(fig, cloth)


def _draw_open_front(fig: Figure, right: Outline, cloth: Colour) -> None:
    b, canvas, person = fig.body, fig.canvas, fig.person
    gap_top, gap_low = b.neck * 1.3, {"coat": 0.036, "jacket": 0.042, "vest": 0.036}[person.outer] * b.width
    gap_low *= 0.7 + 0.3 * b.waist / (0.075 * b.width)
    seam = detail(cloth, 0.4)
    for side in (-1.0, 1.0):
        outer = [(side * x, y) for x, y in right]
        inner = []
        for number, (_, y) in enumerate(right):
            share = min(1.0, number / 3)
            inner.append((side * (gap_top + (gap_low - gap_top) * share), y - (0.004 if number == 0 else 0.0)))
        canvas.ribbon(inner, outer, cloth)
        canvas.line(inner, seam, 0.008)
        canvas.line([outer[-1], inner[-1]], seam, 0.01)
        if person.outer != "vest":
            y = b.hip_y + 0.012
            pocket = [(side * (gap_low + 0.016), y + 0.018), (side * b.hip * 0.94, y)]
            canvas.line(pocket, seam, 0.009)


def _draw_quilting(fig: Figure, left: Outline, right: Outline, seam: Colour) -> None:
    """Horizontal seams of a padded vest, each with a lighter roll above it."""
    canvas = fig.canvas
    gap = 0.045 * fig.body.width if fig.view == "front" else 0.0
    for (lx, ly), (rx, ry) in zip(left[2:-1], right[2:-1], strict=True):
        for y_shift in (0.0, -0.035):
            if gap:
                canvas.line([(lx, ly + y_shift), (-gap, ly + y_shift)], seam, 0.009)
                canvas.line([(gap, ry + y_shift), (rx, ry + y_shift)], seam, 0.009)
            else:
                canvas.line([(lx + 0.004, ly + y_shift), (rx - 0.004, ry + y_shift)], seam, 0.009)


def _draw_outer_collar(fig: Figure, cloth: Colour) -> None:
    b, canvas, person = fig.body, fig.canvas, fig.person
    h, top, neck = b.height, b.shoulder_y + 0.034 * b.height, b.neck
    x = fig.pose.spine(top)
    if fig.view == "side":
        canvas.blob([(x - neck * 1.4, top + 0.01), (x + neck * 0.5, top + 0.002), (x + neck * 1.7, top - 0.05),
                     (x - neck * 1.3, top - 0.026)], detail(cloth, 0.22), smooth=False, edge=True)
    elif fig.view == "back":
        canvas.blob([(-neck * 1.5, top - 0.026), (neck * 1.5, top - 0.026), (neck * 1.2, top + 0.004),
                     (-neck * 1.2, top + 0.004)], detail(cloth, 0.22), smooth=False, edge=True)
    elif person.outer == "coat":
        for side in (-1, 1):
            # Broad lapels.
            canvas.blob([(side * neck * 1.05, top), (side * neck * 2.0, top - 0.03 * h),
                         (side * neck * 2.5, top - 0.085 * h), (side * neck * 1.15, top - 0.165 * h),
                         (side * neck * 0.95, top - 0.06 * h)], detail(cloth, 0.24), smooth=False, edge=True,
                        light=NEUTRAL)
    else:
        for side in (-1, 1):
            canvas.blob([(side * neck * 1.0, top + 0.004), (side * neck * 1.9, top - 0.02 * h),
                         (side * neck * 1.5, top - 0.06 * h), (side * neck * 1.1, top - 0.03 * h)],
                        detail(cloth, 0.24), smooth=False, edge=True)
