"""Colours of a drawn person: every named colour as a tint that stays what it is called."""

from __future__ import annotations

from typing import Final

from train.pedestrians.canvas import Cloth, Colour, darker, lighter, luminance, mix
from train.pedestrians.people import Person

CLOTH: Final[dict[str, Colour]] = {
    "black": (38, 37, 43),
    "white": (244, 243, 238),
    "grey": (139, 141, 146),
    "blue": (42, 92, 196),
    "red": (204, 40, 46),
    "green": (44, 138, 70),
    "yellow": (247, 203, 46),
    "pink": (242, 138, 178),
    "brown": (122, 77, 44),
    "beige": (216, 190, 146),
}
SKIN: Final[dict[str, Colour]] = {"light": (250, 212, 184), "tan": (212, 156, 112), "dark": (120, 78, 54)}
HAIR: Final[dict[str, Colour]] = {
    "black": (36, 31, 33),
    "brown": (104, 64, 38),
    "blond": (232, 192, 104),
    "grey": (186, 188, 192),
    "red": (186, 78, 34),
}
SOLE: Final[Colour] = (236, 236, 232)


def tint(name: str, shade: float = 0.0) -> Colour:
    """A named cloth colour moved by `shade` in [-1, 1] towards darker or lighter, staying nameable."""
    colour = CLOTH[name]
    if name == "black":
        return lighter(colour, 0.05 * (shade + 1.0) / 2)
    if name == "white":
        return darker(colour, 0.05 * (1.0 - shade) / 2)
    if name == "grey":
        return lighter(colour, 0.14 * shade) if shade > 0 else darker(colour, -0.12 * shade)
    if name in ("pink", "yellow", "beige"):
        return lighter(colour, 0.15 * shade) if shade > 0 else mix(colour, CLOTH["brown"], -0.1 * shade)
    # A pale red would be pink.
    pale = 0.04 if name == "red" else 0.14
    return lighter(colour, pale * shade) if shade > 0 else darker(colour, -0.24 * shade)


def accent(colour: Colour) -> Colour:
    """The second colour of a pattern: cream on dark cloth, navy on light."""
    return (248, 246, 236) if luminance(colour) < 150 else (46, 52, 84)


def upper_cloth(person: Person) -> Cloth:
    """The fabric of the upper garment with its pattern."""
    colour = tint(person.upper_colour, person.shade[0])
    period = {"striped": 0.054, "checked": 0.066, "dotted": 0.054}.get(person.pattern, 0.06)
    return Cloth(colour, person.pattern, accent(colour), period * (0.9 + 0.25 * person.stripe), person.stripe)
