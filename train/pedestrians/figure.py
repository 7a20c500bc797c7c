"""The figure that all parts of `drawing` draw: a person, measured and posed, and the sheet below it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from train.pedestrians.anatomy import Arm, Body, Leg, Point, Pose
from train.pedestrians.canvas import Canvas, Colour
from train.pedestrians.palette import SKIN
from train.pedestrians.people import Person

Outline = list[Point]


@dataclass(frozen=True, slots=True)
class Figure:
    """A person in one pose, and the sheet to draw it on. `view` is "front", "back" or "side"."""

    canvas: Canvas
    person: Person
    body: Body
    pose: Pose
    view: str

    @property
    def skin(self) -> Colour:
        """Colour of the bare skin."""
        return SKIN[self.person.skin]

    @property
    def legs(self) -> tuple[Leg, Leg]:
        """Both legs, the farther first."""
        legs = (self.pose.right_leg, self.pose.left_leg)
        return legs if not legs[0].front else (legs[1], legs[0])

    @property
    def arms(self) -> tuple[Arm, Arm]:
        """Both arms, the farther first."""
        arms = (self.pose.right_arm, self.pose.left_arm)
        return arms if not arms[0].front else (arms[1], arms[0])

    def trunk(self, *, loose: float = 0.0, hem: float | None = None, flare: float = 0.0) -> tuple[Outline, Outline]:
        """Left and right edge of a garment over the trunk, from the neck to `hem` (a height).

        `loose` is the room between body and cloth, `flare` widens the hem below the hip; body units.
        """
        b = self.body
        low = b.hip_y if hem is None else hem
        below = max(0.0, b.hip_y - low)
        if self.view == "side":
            return self._side_trunk(loose, low, flare)
        top = b.shoulder_y + 0.022 * b.height
        # From the neck over the shoulder, armpit, waist, hip.
        right = [
            (b.neck * 1.12, top),
            (b.shoulder * 0.66, b.shoulder_y + 0.007 * b.height - 0.008 * b.stoop),
            (b.shoulder * 0.985 + loose * 0.6, b.shoulder_y - 0.022 * b.height - 0.006 * b.stoop),
            (b.shoulder * 0.93 + loose, b.shoulder_y - 0.085 * b.height),
            (b.waist * 0.35 + b.shoulder * 0.58 + loose, (b.shoulder_y + b.waist_y) / 2 - 0.02 * b.height),
            (max(b.waist, b.waist * 0.9 + loose) + loose * 0.5, b.waist_y),
            (b.hip + loose * 0.7, b.hip_y + 0.005),
        ]
        if below > 0.004:
            right.append((b.hip + loose * 0.7 + flare, low))
        return [(-x, y) for x, y in right], right

    def _side_trunk(self, loose: float, low: float, flare: float) -> tuple[Outline, Outline]:
        b, spine = self.body, self.pose.spine
        rows = [
            (b.shoulder_y + 0.02 * b.height, -b.neck * 1.25, b.neck * 0.95),
            (b.shoulder_y - 0.012 * b.height, -b.back * 0.86 - loose, b.bust * 0.5 + loose * 0.4),
            (b.shoulder_y - 0.085 * b.height, -b.back * 1.08 - loose, b.bust * 1.0 + loose),
            ((b.shoulder_y + b.waist_y) / 2 - 0.02, -b.back * 0.94 - loose, b.bust * 0.62 + b.belly * 0.38 + loose),
            (b.waist_y, -b.back * 0.78 - loose, b.belly + loose),
            (b.hip_y + 0.005, -b.seat - loose * 0.7, b.belly * 0.9 + loose * 0.7),
        ]
        if b.hip_y - low > 0.004:
            rows.append((low, -b.seat * 0.92 - loose * 0.7 - flare, b.belly * 0.82 + loose * 0.7 + flare))
        return [(spine(y) + back, y) for y, back, _ in rows], [(spine(y) + front, y) for y, _, front in rows]


def between(first: Point, second: Point, share: float) -> Point:
    """The point that lies `share` of the way from the first to the second."""
    return first[0] + (second[0] - first[0]) * share, first[1] + (second[1] - first[1]) * share


def band(fig: Figure, start: Point, end: Point, shares: tuple[float, float], radius: float, colour: Colour) -> None:
    """A stripe across a limb between two shares of its length."""
    a, b = between(start, end, shares[0]), between(start, end, shares[1])
    length = math.dist(start, end) or 1.0
    nx, ny = -(end[1] - start[1]) / length * radius, (end[0] - start[0]) / length * radius
    corners = [(a[0] + nx, a[1] + ny), (a[0] - nx, a[1] - ny), (b[0] - nx, b[1] - ny), (b[0] + nx, b[1] + ny)]
    fig.canvas.mark(corners, colour, smooth=False)
