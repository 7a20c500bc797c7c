"""Synthetic people: what a person looks like (`Person`) and how one picture of them is taken (`Shot`).

This module holds only the attributes and their distributions; `drawing` draws them,
`captions` says them, `generator` makes data sets of both.

Frequencies are skewed as on a street (black and grey dominate), and the lists are short on purpose:
any two attributes together take fewer than 50 values, so that naming just two of them never finds one
person among 500 more often than one time in ten. A description has to be read whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

Domain = Literal["studio", "street"]
View = Literal["front", "back", "left", "right"]
Use = Literal["training", "replay", "base", "users", "test", "trial", "validation"]
SEEDS: Final[dict[Use, int]] = {
    "training": 11, "replay": 23, "base": 37, "users": 53, "test": 71, "trial": 101, "validation": 97,
}  # fmt: skip
"""Seeds of identities: pretraining and full supervision; replay; the gate's base set; the sample gallery and
simulated users; what is reported. On the last two, which play users and test, settings are chosen."""

COLOURS: Final = ("black", "white", "grey", "blue", "red", "green", "yellow", "pink")
"""Every colour a garment can have. Single garments use a part of it (see `CHOICES`)."""

# attribute -> {value: relative frequency}. Order is part of the generator's version.
CHOICES: Final[dict[str, dict[str, float]]] = {
    "sex": {"man": 0.5, "woman": 0.5},
    "age": {"child": 0.12, "adult": 0.68, "elderly": 0.20},
    "build": {"slim": 0.3, "average": 0.42, "heavy": 0.28},
    "skin": {"light": 0.45, "tan": 0.3, "dark": 0.25},
    "hair_colour": {"black": 0.34, "brown": 0.28, "blond": 0.18, "grey": 0.1, "red": 0.1},
    "headgear": {"none": 0.6, "cap": 0.16, "beanie": 0.12, "hat": 0.12},
    "headgear_colour": {"black": 0.3, "white": 0.15, "grey": 0.15, "blue": 0.15, "red": 0.25},
    "glasses": {"none": 0.66, "glasses": 0.2, "sunglasses": 0.14},
    "scarf": {"none": 0.8, "red": 0.05, "white": 0.05, "blue": 0.05, "yellow": 0.05},
    "upper": {"t-shirt": 0.27, "shirt": 0.2, "sweater": 0.2, "hoodie": 0.18, "tank top": 0.15},
    "upper_colour": {
        "black": 0.17,
        "white": 0.17,
        "grey": 0.13,
        "blue": 0.14,
        "red": 0.13,
        "green": 0.1,
        "yellow": 0.08,
        "pink": 0.08,
    },
    "pattern": {"plain": 0.5, "striped": 0.18, "checked": 0.12, "dotted": 0.08, "logo": 0.12},
    "outer": {"none": 0.55, "jacket": 0.17, "coat": 0.15, "vest": 0.13},
    "outer_colour": {"black": 0.3, "grey": 0.18, "blue": 0.18, "green": 0.12, "red": 0.12, "brown": 0.1},
    "lower": {"trousers": 0.3, "jeans": 0.26, "shorts": 0.18, "skirt": 0.13, "dress": 0.13},
    "lower_colour": {"black": 0.28, "blue": 0.2, "grey": 0.17, "beige": 0.13, "white": 0.11, "red": 0.11},
    "shoes": {"sneakers": 0.4, "boots": 0.25, "sandals": 0.15, "dress shoes": 0.2},
    "shoe_colour": {"black": 0.35, "white": 0.25, "brown": 0.2, "red": 0.1, "blue": 0.1},
    "bag": {"none": 0.34, "backpack": 0.24, "handbag": 0.14, "shoulder bag": 0.16, "suitcase": 0.12},
    "bag_colour": {"black": 0.3, "brown": 0.2, "blue": 0.15, "red": 0.15, "green": 0.1, "yellow": 0.1},
    "carried": {"none": 0.55, "phone": 0.13, "umbrella": 0.11, "cup": 0.11, "book": 0.1},
}

HAIR_STYLES: Final[dict[str, dict[str, float]]] = {
    "man": {"bald": 0.16, "short": 0.56, "long": 0.16, "ponytail": 0.12},
    "woman": {"short": 0.2, "long": 0.4, "ponytail": 0.24, "bun": 0.16},
}
"""Hair depends on the sex, nothing else does but skirts and dresses (women only)."""

VIEWS: Final[tuple[View, ...]] = ("front", "back", "left", "right")


@dataclass(frozen=True, slots=True)
class Person:
    """What stays the same in every picture of one identity; values as in `CHOICES`.

    A colour says something only where its garment exists: `bag_colour` means nothing with `bag == "none"`.
    With `lower == "dress"` the dress has `lower_colour` and covers the upper body too: `upper`,
    `upper_colour`, `pattern` and `sleeves` are then not to be seen and never said.
    `shade` holds four small numbers in [-1, 1] that move the tint of upper, outer, lower and bag within
    their colour; `body` holds height, head size, shoulder width and leg share in [-1, 1]; `stripe` in [0, 1)
    is the phase and width of a pattern. None of these three is ever said in words.
    """

    pid: int
    sex: str
    age: str
    build: str
    skin: str
    hair_style: str
    hair_colour: str
    headgear: str
    headgear_colour: str
    glasses: str
    scarf: str
    upper: str
    upper_colour: str
    pattern: str
    sleeves: str
    outer: str
    outer_colour: str
    lower: str
    lower_colour: str
    shoes: str
    shoe_colour: str
    bag: str
    bag_colour: str
    carried: str
    shade: tuple[float, float, float, float]
    body: tuple[float, float, float, float]
    stripe: float


@dataclass(frozen=True, slots=True)
class Shot:
    """How one picture is taken. All of it is decided here; drawing a shot twice gives the same bytes.

    `stride` in [0, 1) is the phase of the walk (0: standing, legs together at 0.5 again) and `gait` in [0, 1]
    how wide the steps are. `camera` 0-5 is a place: its background, height (0 eye level, 1 from
    above) and light. `occluder` hides the part below `occluder_top` (share of the height; 1 = nothing hidden):
    `"none"`, `"bush"`, `"car"`, `"fence"`, `"person"` or `"pole"`. `crop` moves and scales the figure:
    (dx, dy, zoom), in shares of the width, the height, and 1 ± something. `seed` feeds noise and clutter.
    """

    domain: Domain
    view: View
    stride: float
    gait: float
    camera: int
    occluder: str
    occluder_top: float
    crop: tuple[float, float, float]
    seed: int


def _pick(rng: np.random.Generator, table: dict[str, float]) -> str:
    values = list(table)
    weights = np.array(list(table.values()))
    return values[int(rng.choice(len(values), p=weights / weights.sum()))]


def sample_person(seed: int, pid: int) -> Person:
    """Draw identity number `pid` of the population `seed`; the same pair gives the same person for ever."""
    rng = np.random.default_rng([seed, pid, 1])
    value = {name: _pick(rng, table) for name, table in CHOICES.items()}
    if value["sex"] == "man" and value["lower"] in ("skirt", "dress"):
        value["lower"] = "trousers" if rng.random() < 0.6 else "shorts"
    hair_style = _pick(rng, HAIR_STYLES[value["sex"]])
    if value["age"] == "elderly" and rng.random() < 0.7:
        value["hair_colour"] = "grey"
    sleeves = {"t-shirt": "short", "sweater": "long", "hoodie": "long", "tank top": "none"}.get(value["upper"])
    if sleeves is None:
        sleeves = "short" if rng.random() < 0.4 else "long"
    if value["lower"] == "dress":
        sleeves = "short"
    shade = tuple(float(x) for x in rng.uniform(-1, 1, 4).round(3))
    body = tuple(float(x) for x in rng.uniform(-1, 1, 4).round(3))
    stripe = float(round(rng.random(), 3))
    return Person(
        pid=pid,
        hair_style=hair_style,
        sleeves=sleeves,
        shade=(shade[0], shade[1], shade[2], shade[3]),
        body=(body[0], body[1], body[2], body[3]),
        stripe=stripe,
        **value,
    )


def sample_shot(seed: int, pid: int, number: int, domain: Domain) -> Shot:
    """Decide how picture `number` of person `pid` is taken in `domain`.

    Pictures 0 and 1 of a person never share view and camera. On the street two pictures in five have an
    occluder and the figure is cropped tightly or loosely, as detectors do; in the studio nothing hides it.
    """
    rng = np.random.default_rng([seed, pid, 2, number, 0 if domain == "studio" else 1])
    base = np.random.default_rng([seed, pid, 3]).integers(0, 24)
    view = VIEWS[(int(base) + number + (number // 4)) % 4]
    camera = (int(base) // 4 + number * (1 + int(rng.integers(0, 4)))) % 6
    stride, gait = float(rng.random()), float(rng.uniform(0.15, 1.0))
    seed_here = int(rng.integers(0, 2**31))
    if domain == "studio":
        crop = (float(rng.uniform(-0.05, 0.05)), float(rng.uniform(-0.02, 0.02)), float(rng.uniform(0.92, 1.05)))
        return Shot(domain, view, stride, gait, camera, "none", 1.0, crop, seed_here)
    occluder, top = "none", 1.0
    if rng.random() < 0.4:
        occluder = ("bush", "car", "fence", "person", "pole")[int(rng.integers(0, 5))]
        top = float(rng.uniform(0.6, 0.9))
    crop = (float(rng.uniform(-0.12, 0.12)), float(rng.uniform(-0.06, 0.05)), float(rng.uniform(0.82, 1.18)))
    return Shot(domain, view, stride, gait, camera, occluder, top, crop, seed_here)


def visible(person: Person, shot: Shot) -> frozenset[str]:
    """The attributes of `person` that this shot shows: the only ones a caption may name.

    Hidden are things that do not exist (no bag), that the view turns away (glasses from behind), that clothes
    cover (a shirt under a closed coat from behind) or that the occluder hides (shoes).
    """
    seen = {"sex", "age", "build", "skin", "hair_style", "hair_colour", "outer", "lower", "lower_colour"}
    seen |= {"shoes", "shoe_colour", "upper", "upper_colour", "pattern", "sleeves", "headgear", "bag", "carried"}
    seen |= {"glasses", "scarf", "headgear_colour", "outer_colour", "bag_colour"}
    for thing, detail in (("headgear", "headgear_colour"), ("outer", "outer_colour"), ("bag", "bag_colour")):
        if getattr(person, thing) == "none":
            seen.discard(detail)
    if person.hair_style == "bald":
        seen.discard("hair_colour")
    if person.headgear in ("beanie", "hat") and person.hair_style in ("bald", "short", "bun"):
        seen -= {"hair_style", "hair_colour"}
    if person.headgear == "cap" and person.hair_style in ("bald", "bun"):
        seen -= {"hair_style", "hair_colour"}
    if person.scarf == "none":
        seen.discard("scarf")
    if shot.view == "back":
        seen -= {"glasses", "skin"}
    if shot.view == "back" and person.outer != "none":
        seen -= {"upper", "upper_colour", "pattern"}
    if person.outer in ("jacket", "coat"):
        seen.discard("sleeves")
    if person.outer in ("jacket", "coat") and shot.view in ("left", "right"):
        seen -= {"upper", "upper_colour", "pattern"}
    if person.pattern == "logo" and shot.view != "front":
        seen.discard("pattern")
    if person.lower == "dress":
        seen -= {"upper", "upper_colour", "pattern", "sleeves"}
    if person.outer == "vest" and shot.view in ("left", "right"):
        # Only the sleeves look out.
        seen -= {"upper", "pattern"} if person.sleeves != "none" else {"upper", "upper_colour", "pattern"}
    if person.outer == "coat" and person.lower in ("shorts", "skirt") and shot.view != "front":
        seen -= {"lower", "lower_colour"}  # shorter than the coat
    if person.bag == "handbag" and shot.view == "left":
        seen -= {"bag", "bag_colour"}  # carried on the far side
    if person.carried != "none" and person.carried != "umbrella" and shot.view == "back":
        seen.discard("carried")
    # From the figure's feet upwards, what an occluder that starts at `occluder_top` leaves to be seen.
    if shot.occluder not in ("none", "pole", "fence"):
        if shot.occluder_top < 0.93:
            seen -= {"shoes", "shoe_colour"}
        if shot.occluder_top < 0.7:
            seen -= {"lower", "lower_colour"} if person.lower != "dress" else {"shoes"}
        if shot.occluder_top < 0.85 and person.bag == "suitcase":
            seen -= {"bag", "bag_colour"}
        if shot.occluder_top < 0.75 and person.carried == "umbrella":
            seen.discard("carried")
        if shot.occluder_top < 0.66 and person.bag == "handbag":
            seen -= {"bag", "bag_colour"}
    return frozenset(seen)
