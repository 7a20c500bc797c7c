"""Draw one picture of a synthetic person: `draw(person, shot)`."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from train.pedestrians.anatomy import held_in_right, measure, pose
from train.pedestrians.belongings import draw_bag_before, draw_bag_behind, draw_bag_in_hand, draw_carried
from train.pedestrians.canvas import HEIGHT, MARGIN, NEUTRAL, WIDTH, Canvas, Placement
from train.pedestrians.figure import Figure
from train.pedestrians.heads import draw_hair_behind, draw_head, draw_scarf
from train.pedestrians.limbs import draw_arm, draw_legs
from train.pedestrians.people import Person, Shot
from train.pedestrians.scenes import PLACES, window
from train.pedestrians.street import STREET, add_clutter, degrade, draw_occluder
from train.pedestrians.tops import draw_outer, draw_upper

UNIT: Final = 332.0
"""Pixels of an adult's height at zoom 1."""
GROUND: Final = 366.0
"""Row of the feet."""
HIGHEST: Final = {"studio": 8.0, "street": -3.0}
"""No head ends above this row: a tall figure with a hat is drawn a little smaller. Streets are cropped tighter."""
LIFT: Final = 26.0
"""Grey levels that the light adds where it doubles."""


def draw(person: Person, shot: Shot) -> Image.Image:
    """One RGB picture, 384 high and 128 wide; the same person and shot give the same bytes.

    Raises KeyError or IndexError for values that `people` does not know.
    """
    rng = np.random.default_rng([shot.seed, 11])
    street = shot.domain == "street"
    fig = _figure(person, shot)
    draw_figure(fig)
    colour, light = fig.canvas.layers()
    place = fig.canvas.placement
    left = _centre(colour, shot)
    picture = window(shot.camera, shot.domain, rng)
    if street:
        picture = add_clutter(picture, shot, rng)
    _cast_shadow(picture, fig, place.x - left, strength=STREET.shadow if street else 0.26)
    picture = _compose(picture, colour, light, left, PLACES[shot.camera].warmth)
    if not street:
        return picture
    # What an occluder hides counts from the figure's head to its feet.
    feet = place.y - fig.pose.ground * place.unit
    top = feet - (1.0 - shot.occluder_top) * fig.body.height * place.unit
    return degrade(draw_occluder(picture, shot, top, rng), shot, rng)


def _figure(person: Person, shot: Shot) -> Figure:
    body = measure(person)
    moment = pose(person, shot, body)
    camera = PLACES[shot.camera]
    dx, dy, zoom = shot.crop
    foot = GROUND + dy * HEIGHT * 0.5
    top = body.height + body.head * (0.1 if person.headgear in ("none", "cap") else 0.34)
    unit = min(UNIT * zoom, (foot - HIGHEST[shot.domain]) / top)
    placement = Placement(
        x=MARGIN + WIDTH / 2 + dx * WIDTH * 0.6,
        y=foot + moment.ground * unit,
        unit=unit,
        flip=shot.view == "left",
        elevation=camera.elevation,
        light=camera.light,
    )
    view = "side" if shot.view in ("left", "right") else shot.view
    return Figure(Canvas(placement), person, body, moment, view)


def draw_figure(fig: Figure) -> None:
    """Paint a whole figure, from what is behind to what is in front."""
    side, back = fig.view == "side", fig.view == "back"
    holding = fig.pose.right_arm if held_in_right(fig.person) else fig.pose.left_arm
    carried_behind = side and not holding.front
    # Seen from the front both arms lie over the trunk.
    behind = [arm for arm in fig.arms if not arm.front and fig.view != "front"]
    draw_hair_behind(fig)
    draw_bag_behind(fig)
    for arm in behind:
        draw_arm(fig, arm)
    if carried_behind:
        draw_carried(fig)
    draw_legs(fig)
    draw_upper(fig)
    draw_outer(fig)
    draw_bag_before(fig)
    if not back:
        draw_head(fig)
        draw_scarf(fig)
    elif fig.person.hair_style != "long":
        draw_scarf(fig)
    for arm in fig.arms:
        if arm not in behind:
            draw_arm(fig, arm)
    if back:
        # A ponytail hangs over the scarf, long hair is wrapped in it.
        draw_head(fig)
        if fig.person.hair_style == "long":
            draw_scarf(fig)
    draw_bag_in_hand(fig)
    if not carried_behind:
        draw_carried(fig)


def _centre(colour: Image.Image, shot: Shot) -> int:
    """Left edge of the window on the wide canvas: what the figure holds belongs into the frame too."""
    box = colour.getbbox()
    if box is None:
        return MARGIN
    off_centre = (box[0] + box[2]) / 2 - (MARGIN + WIDTH / 2 + shot.crop[0] * WIDTH * 0.6)
    return max(0, min(2 * MARGIN, MARGIN + round(off_centre * (1.0 if shot.domain == "studio" else 0.8))))


def _cast_shadow(picture: Image.Image, fig: Figure, x: float, *, strength: float) -> None:
    """A soft shadow on the ground, turned away from the light, darkest below the feet."""
    place = fig.canvas.placement
    y, unit = place.y - fig.pose.ground * place.unit, place.unit
    away = -place.light
    mask = Image.new("L", (WIDTH // 2, 48))
    brush = ImageDraw.Draw(mask)
    cx = x / 2
    wide = unit * (0.13 if fig.view == "side" else 0.11) / 2
    reach = unit * 0.2 / 2 * away
    brush.ellipse(
        (min(cx - wide, cx - wide + reach), 20, max(cx + wide, cx + wide + reach), 33), fill=round(150 * strength)
    )
    brush.ellipse((cx - wide, 22, cx + wide, 32), fill=round(255 * strength))
    mask = mask.filter(ImageFilter.GaussianBlur(2.5)).resize((WIDTH, 96))
    picture.paste((22, 22, 40), (0, round(y) - 54), mask)


def _compose(
    picture: Image.Image, colour: Image.Image, light: Image.Image, left: int, warmth: tuple[float, float, float]
) -> Image.Image:
    """Lay the lit figure over the background; whole-image operations on bytes, as the fastest way."""
    box = (left, 0, left + WIDTH, HEIGHT)
    glow = light.filter(ImageFilter.GaussianBlur(1.2)).crop(box)
    red, green, blue, alpha = colour.crop(box).split()
    # colour * glow + LIFT * (glow - 1): light is added too, or folds in black cloth could not be seen.
    lift = ImageChops.multiply(glow, alpha).point(_table(LIFT / NEUTRAL))
    bands = []
    for band, warm in zip((red, green, blue), warmth, strict=True):
        lit = ImageChops.multiply(band, glow).point(_table(warm * 255 / NEUTRAL))
        bands.append(ImageChops.add(lit, lift, 1, -round(LIFT)))
    clear = ImageChops.invert(alpha)
    beneath = ImageChops.multiply(picture, Image.merge("RGB", (clear, clear, clear)))
    return ImageChops.add(beneath, Image.merge("RGB", bands))


@lru_cache(maxsize=64)
def _table(factor: float) -> list[int]:
    """Every grey times `factor`, for `Image.point`."""
    return [min(255, round(grey * factor)) for grey in range(256)]
