"""A third domain of drawn people, `foreign`, to measure how learning carries over: unlike the others in attributes,
colours, bodies (paper cut-outs with ink outlines), places, camera faults and grammar. `foreign.toml` holds its tables.

Settings of learning are never chosen by it, and each figure on it carries `FOREIGN_VERSION`. Versions 2 and 3 were made
because plain `mini` found nearly nobody. Their words were chosen by vocabulary (one in eight is none of studio's), the
difficulty of version 3 (how clear pictures are, what is said how often) by plain `mini` on validation people, for an
R@1 of 9 to 12 %, before anything learnt was measured on version 3.
"""

from __future__ import annotations

import io
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageOps

from train.pedestrians.cutouts import INK, Colour, Point, Spot, mix, paint, rgb
from train.pedestrians.people import SEEDS, Use

FOREIGN_VERSION: Final = "3"
WIDTH, HEIGHT = 128, 384
VIEWS: Final = ("front", "left", "back", "right")
FEWEST, MOST = 8, 11
"""How many attributes a caption names (fewer where fewer are visible, one more for a child)."""

TABLES: Final[dict[str, Any]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
TRAITS: Final[dict[str, dict[str, float]]] = TABLES["traits"]
"""Any two together take fewer than 50 values, most often a few of them: a caption has to be read whole."""
WORDS: Final[dict[str, dict[str, str]]] = TABLES["words"]
HUES: Final = ("headwear_hue", "garb_hue", "legs_hue", "shoes_hue", "cloak", "sash")
"""The attributes whose values are colours of `WORDS["hue"]`."""
_CUTOUTS: Final[dict[str, str]] = TABLES["cutouts"]
_DYES: Final[dict[str, Colour]] = {name: rgb(dye) for name, dye in TABLES["dyes"].items()}
_PLACES: Final[dict[str, str]] = TABLES["places"]
_SALT: Final = 60193
"""Part of every seed: these people are not those of the other domains."""
_PLAIN: Final = 0.86
"""How often a plain word is chosen, where there is an unusual one too."""
_PALE: Final = 0.5
"""How much of a place is lost in the white of the paper."""
_FINE: Final = 2
"""Pictures are drawn so many times larger."""
_ROOM: Final = (28, 20)
"""How far a picture may move across a backdrop, pixels to the right and down."""


@dataclass(frozen=True, slots=True)
class ForeignPerson:
    """What stays the same in every picture: `traits`, and what no caption names: the number of the `skin`, and `tints`
    in [-1, 1] of garb, legs, headwear, shoes, height, width."""

    traits: Mapping[str, str]
    skin: int
    tints: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ForeignShot:
    """How one picture is taken. `step` in [-1, 1] is the walk (0: legs together), `roll` tilts the camera, `crop` is
    (dx, dy, zoom); a `cut` picture ends above the feet. `seed` feeds the `faults`."""

    view: str
    place: str
    step: float
    roll: float
    crop: tuple[float, float, float]
    cut: bool
    light: float
    faults: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class ForeignTake:
    """One picture to be drawn: picture `number` of person `pid` of the population `use`."""

    use: Use
    pid: int
    number: int

    @property
    def domain(self) -> Literal["foreign"]:
        return "foreign"

    @property
    def version(self) -> str:
        return FOREIGN_VERSION

    def person(self) -> ForeignPerson:
        return sample_person(self.use, self.pid)

    def shot(self) -> ForeignShot:
        return sample_shot(self.use, self.pid, self.number)

    def picture(self) -> Image.Image:
        """The picture, RGB, 384 x 128 (height x width)."""
        return draw(self.person(), self.shot())

    def caption(self, annotator: int = 0) -> str:
        """What annotator number `annotator` says of this picture."""
        return describe(self.person(), self.shot(), self._rng(annotator))[0]

    def named(self, annotator: int = 0) -> frozenset[str]:
        """The attributes that `caption(annotator)` names."""
        return describe(self.person(), self.shot(), self._rng(annotator))[1]

    def _rng(self, annotator: int) -> np.random.Generator:
        return np.random.default_rng([SEEDS[self.use], self.pid, _SALT, 4, self.number, annotator])


def takes(use: Use, people: int, shots: int, *, first: int = 0) -> list[ForeignTake]:
    """`shots` takes of each of `people` identities, counted from number `first`; takes of a person adjoin."""
    return [ForeignTake(use, pid, number) for pid in range(first, first + people) for number in range(shots)]


def sample_person(use: Use, pid: int) -> ForeignPerson:
    """Identity number `pid` of the population `use`."""
    rng = np.random.default_rng([SEEDS[use], pid, _SALT, 1])
    traits = {}
    for name, table in TRAITS.items():
        shares = np.array(list(table.values()))
        traits[name] = list(table)[int(rng.choice(len(shares), p=shares / shares.sum()))]
    grey, tints = rng.random() < 0.6, rng.uniform(-1, 1, 6).round(3).tolist()
    if traits["sex"] == "woman" or traits["age"] == "child":
        traits["beard"] = "none"
    if traits["age"] == "old" and grey:
        traits["hair_tone"] = "silver"
    return ForeignPerson(traits, int(rng.integers(0, len(TABLES["skins"]))), tuple(tints))


def sample_shot(use: Use, pid: int, number: int) -> ForeignShot:
    """How picture `number` of that person is taken; pictures 0 and 1 share neither view nor place."""
    base = np.random.default_rng([SEEDS[use], pid, _SALT, 2]).integers(0, 24, 2)
    rng = np.random.default_rng([SEEDS[use], pid, _SALT, 3, number])
    cut = bool(rng.random() < 0.15)
    zoom = float(rng.uniform(1.14, 1.22) if cut else rng.uniform(0.86, 1.0))
    return ForeignShot(
        view=VIEWS[int(base[0] + number + number // 4) % 4],
        place=list(_PLACES)[int(base[1] + number) % len(_PLACES)],
        step=float(rng.uniform(-1, 1)),
        roll=float(rng.uniform(-0.05, 0.05)),
        crop=(float(rng.uniform(-0.08, 0.08)), float(rng.uniform(-0.02, 0.02)), zoom),
        cut=cut,
        light=float(rng.uniform(0.75, 1.1)),
        faults=tuple(name for name, share in TABLES["faults"].items() if rng.random() < share),
        seed=int(rng.integers(0, 2**31)),
    )


def visible(person: ForeignPerson, shot: ForeignShot) -> frozenset[str]:
    """The attributes that a caption of this shot may name."""
    traits, back = person.traits, shot.view == "back"
    hat, hair, cloaked = traits["headwear"], traits["hair"], traits["cloak"] != "none"
    hidden = {
        ("headwear_hue",): hat == "none",
        ("hair", "hair_tone"): hat == "headscarf" or (hat != "none" and hair == "shorn"),
        ("hair",): hat == "turban" and hair == "frizzy",
        ("legs", "legs_hue"): traits["garb"] == "robe",
        ("sash",): traits["garb"] == "poncho" or (back and cloaked),
        ("shoes_hue",): traits["shoes"] == "barefoot",
        ("shoes", "shoes_hue"): shot.cut,
        ("eyes", "beard"): back,
        ("garb", "garb_hue", "motif"): back and cloaked,
    }
    seen = {name for name, value in traits.items() if value not in ("none", "grown", "middling")}
    return frozenset(seen.difference(*(names for names, rule in hidden.items() if rule)))


def draw(person: ForeignPerson, shot: ForeignShot) -> Image.Image:
    """One RGB picture, 384 high and 128 wide; the same person and shot give the same bytes."""
    rng = np.random.default_rng([shot.seed, _SALT])
    x, y = (int(rng.integers(0, room * _FINE + 1)) for room in _ROOM)
    picture = _backdrop(shot.place).crop((x, y, x + WIDTH * _FINE, y + HEIGHT * _FINE))
    if rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    _Figure(picture, person, shot).draw()
    return _spoil(picture.reduce(_FINE), shot, rng)


class _Figure:
    """One person in one picture. Bodies in hundredths of an adult's height: x to where they look, y from the ground."""

    def __init__(self, picture: Image.Image, person: ForeignPerson, shot: ForeignShot) -> None:
        self.brush, self.traits, self.shot = ImageDraw.Draw(picture), person.traits, shot
        t, tints = person.traits, person.tints
        self.side = shot.view in ("left", "right")
        self.old, self.young, self.man = t["age"] == "old", t["age"] == "child", t["sex"] == "man"
        tall = {"lanky": 1.03, "middling": 1.0, "stout": 0.95}[t["build"]] * (1 + 0.02 * tints[4])
        self.unit = 3.16 * shot.crop[2] * tall * (0.78 if self.young else 1.0) * _FINE
        self.foot = (366 + shot.crop[1] * HEIGHT + (322 * (shot.crop[2] - 1) if shot.cut else 0)) * _FINE
        self.middle = WIDTH * (0.5 + shot.crop[0] - shot.roll * 1.2) * _FINE
        self.sign = -1.0 if shot.view in ("left", "back") else 1.0
        self.wide = {"lanky": 0.8, "middling": 1.0, "stout": 1.22}[t["build"]] * (1 + 0.04 * tints[5])
        self.dyes = _DYES | {part: _DYES[t[part]] for part in ("cloak", "sash") if t[part] != "none"}
        for part, tint in zip(("garb", "legs", "headwear", "shoes"), tints, strict=False):
            self.dyes[part] = mix(_DYES[t[f"{part}_hue"]], (250, 250, 250) if tint > 0 else INK, 0.14 * abs(tint))
        self.dyes |= {"skin": rgb(TABLES["skins"][person.skin]), "hair": _DYES[t["hair_tone"]]}
        self.dyes["accent"] = _DYES["maroon" if sum(_DYES[t["garb_hue"]]) > 400 else "cream"]

    def stick(self, name: str, spot: Spot) -> None:
        """Paint a cut-out as this view shows it."""
        view = "side" if self.side else self.shot.view
        text = _CUTOUTS.get(f"{name}:{view}", _CUTOUTS.get(name, ""))
        paint(self.brush, text, lambda x, y: self.pixel(*spot(x, y)), self.dyes, unit=self.unit, ink=3)

    def pixel(self, x: float, y: float) -> Point:
        lean = 0.16 * max(0.0, y - 50) if self.old and self.side else 0.0
        return self.middle + (self.sign * (x + lean) + self.shot.roll * y) * self.unit, self.foot - y * self.unit

    def body(self, x: float, y: float) -> Point:
        share = min(1.0, max(0.0, (y - 42) / 38))
        hip, shoulder = (0.92, 1.12) if self.man else (1.14, 0.88)
        return x * self.wide * (hip + (shoulder - hip) * share) * (0.76 if self.side else 1.0), y

    def head(self, x: float, y: float) -> Point:
        size = 0.72 * (1.2 if self.young else 1.0)
        return x * size + (1.2 if self.side else 0.0), y * size + (88 if self.old else 90.5)

    def leg(self, way: int) -> Spot:
        step = way * self.shot.step * (11 if self.side else 1.5)
        hip, foot = (way * 1.2, step) if self.side else (way * 4 * self.wide, way * 5 * self.wide + step)
        thick = (0.55 + 0.45 * self.wide) * (1.0 if self.side else way * 0.7)
        return lambda x, y: (foot + (hip - foot) * y / 50 + x * thick, y)

    def hand(self, way: int) -> Spot:
        front = self.body(9.2, 77)[0] + 3.2 + 1.2 * way * self.shot.step
        reach = 3 + way * (6 + 2 * abs(self.shot.step)) if self.side else way * front
        return lambda x, y: (reach + 1.35 * x, 50 + 1.35 * y)

    def arm(self, way: int) -> Spot:
        shoulder, hand = 0.0 if self.side else way * self.body(8.6, 77)[0], self.hand(way)(0, 0)[0]
        return lambda x, y: (shoulder + (hand - shoulder) * (77 - y) / 27 + x, y)

    def arms(self, *ways: int) -> None:
        for way in ways:
            self.stick("arm", self.arm(way))
            self.stick(f"sleeve {self.traits['garb']}", self.arm(way))

    def draw(self) -> None:
        """From what lies behind to what lies before."""
        t, back, early = self.traits, self.shot.view == "back", self.traits["garb"] == "poncho"
        if t["cloak"] != "none":
            self.stick("cloak behind", self.body)
        self.arms(*((-1,) if self.side else (-1, 1) if early else ()))
        if not back and t["headwear"] != "headscarf" and t["hair"] in ("loose", "frizzy"):
            self.stick(t["hair"], self.head)
        for way in (-1, 1):
            self.stick("leg", self.leg(way))
            if t["garb"] != "robe":
                self.stick(t["legs"] if t["legs"] != "kilt" else "", self.leg(way))
            self.stick(t["shoes"], self.leg(way))
        if t["legs"] == "kilt" and t["garb"] != "robe":
            self.stick("kilt", self.body)
        self.stick(t["garb"], self.body)
        self.stick(f"{t['garb']} {t['motif']}", self.body)
        if t["sash"] != "none" and not early:
            self.stick("sash", self.body)
        self.arms(*(() if self.side or early else (-1, 1)))
        self._draw_head(back=back)
        self.arms(*((1,) if self.side else ()))
        self.stick(t["load"], self.hand(-1) if t["load"] in ("reticule", "valise") else self.body)
        self.stick(t["held"], self.hand(1))

    def _draw_head(self, *, back: bool) -> None:
        t, scarf = self.traits, self.traits["headwear"] == "headscarf"
        for name in ("neck", "head", *(() if back else ("face", t["sex"], "wrinkles" if self.old else "", t["beard"]))):
            self.stick(name, self.head)
        if t["cloak"] != "none":
            self.stick("cloak", self.body)
        for name in ("" if scarf else "stubble" if t["hair"] == "shorn" else "cap", "" if back else t["eyes"]):
            self.stick(name, self.head)
        if not scarf and (back or t["hair"] == "tail"):
            self.stick(t["hair"], self.head)
        self.stick("" if self.man else "rings", self.head)
        self.stick(t["headwear"], self.head)


@lru_cache(maxsize=len(_PLACES))
def _backdrop(place: str) -> Image.Image:
    """The whole of a place, larger than a picture: each shot cuts its own window. Callers must not draw on it."""
    picture = Image.new("RGB", ((WIDTH + _ROOM[0]) * _FINE, (HEIGHT + _ROOM[1]) * _FINE))
    wide, tall = picture.width / 100, picture.height / 100
    paint(ImageDraw.Draw(picture), _PLACES[place], lambda x, y: (x * wide, y * tall), _DYES, unit=wide)
    return Image.blend(picture, Image.new("RGB", picture.size, _DYES["paper"]), _PALE)


def _spoil(picture: Image.Image, shot: ForeignShot, rng: np.random.Generator) -> Image.Image:
    """The light of the shot and the faults of its camera."""
    low, high = (52, 214) if "faded" in shot.faults else (0, 255)
    cast = rng.uniform(0.84, 1.1, 3) if "cast" in shot.faults else np.ones(3)
    tones = np.outer(cast * shot.light, np.linspace(low, high, 256))
    picture = picture.point(np.clip(tones, 0, 255).astype(int).ravel().tolist())
    if "vignette" in shot.faults:
        picture = ImageChops.multiply(picture, _vignette())
    if "rain" in shot.faults:
        brush, slant = ImageDraw.Draw(picture), float(rng.uniform(-8, 8))
        for x, y, long in (rng.random((34, 3)) * (WIDTH, HEIGHT, 30)).tolist():
            brush.line((x, y, x + slant * long / 30, y + 8 + long), (196, 204, 214))
    if "blocks" in shot.faults:
        packed = io.BytesIO()
        picture.save(packed, "JPEG", quality=int(rng.integers(14, 34)))
        picture = Image.open(packed).convert("RGB")
    return picture


@lru_cache(maxsize=1)
def _vignette() -> Image.Image:
    """Darker towards the corners, round as a lens is."""
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    grey = Image.fromarray((255 * (1 - 0.3 * np.clip(x * x * 0.5 + y * y, 0, 2))).astype(np.uint8))
    return Image.merge("RGB", (grey, grey, grey))


def describe(person: ForeignPerson, shot: ForeignShot, rng: np.random.Generator) -> tuple[str, frozenset[str]]:
    """One caption by a voice chosen by `rng`, and the attributes it names: all visible in the shot, and true."""
    voice = TABLES["voices"][int(rng.integers(0, len(TABLES["voices"])))]
    speaker = _Speaker(person.traits, _choose(person, shot, voice["looks_at"], rng), rng)
    parts = speaker.parts() | {"act": ""}
    if rng.random() < 0.6:
        how = "walking" if abs(shot.step) > 0.35 else "standing"
        parts["act"] = f"{speaker.word(WORDS['act'][how])} {speaker.word(WORDS['scene'][shot.place])}"
    text = ""
    for segment in voice["says"].split("|"):
        fields = re.findall(r"{(who|worn|rising|has|load|act)}", segment)
        if not fields or any(parts[field] for field in fields):
            text += segment.format(**parts)
    text = re.sub(r" +(?=[ ,.:;?])", "", text.strip(" ,;:|"))
    text = re.sub(r"(^|[.?] )([a-z])", lambda f: f[1] + f[2].upper(), re.sub(r"\ba (?=[aeiou])", "an ", text))
    return text if text.endswith("?") else f"{text}.", speaker.named


def _choose(person: ForeignPerson, shot: ForeignShot, looks: str, rng: np.random.Generator) -> frozenset[str]:
    """What a caption names: what is noticed most is named most."""
    seen = sorted(visible(person, shot))
    weights = np.array([TABLES["named"].get(name, 1.0) * (2.5 if name in looks.split() else 1.0) for name in seen])
    weights *= [0.15 if person.traits[name] == "plain" else 1.0 for name in seen]
    count = min(len(seen), int(rng.integers(FEWEST, MOST + 1)))
    named = {seen[index] for index in rng.choice(len(seen), count, replace=False, p=weights / weights.sum())}
    return frozenset(named | ({"age"} if person.traits["age"] == "child" and "sex" in named else set()))


class _Speaker:
    """Turns named attributes into noun phrases."""

    def __init__(self, traits: Mapping[str, str], named: frozenset[str], rng: np.random.Generator) -> None:
        self.traits, self.named, self.rng = traits, named, rng

    def word(self, words: str) -> str:
        """One of "plain, plain | unusual, unusual"."""
        plain, unusual = (shelf.strip().split(", ") for shelf in words.split("|"))
        shelf = plain if self.rng.random() < _PLAIN else unusual
        return shelf[int(self.rng.integers(0, len(shelf)))]

    def say(self, name: str) -> str:
        """The value of an attribute; "" where it is not named."""
        table = WORDS["hue" if name in HUES else name]
        return self.word(table[self.traits[name]]) if name in self.named else ""

    def thing(self, name: str, *adjectives: str) -> str:
        """A thing with its article and adjectives, by its kind or in general; "" where nothing of it is named."""
        words = [word for word in map(self.say, adjectives) if word]
        kind = "" if name in HUES else self.say(name)
        if not (words or kind):
            return ""
        noun = kind or self.word(WORDS[name]["any"])
        plural = re.search(r"([^s]s|feet|attire|raiment|wear|gear)$", noun)
        return " ".join(filter(None, ("" if plural else "a", *words, noun)))

    def hair(self) -> str:
        style = self.say("hair") or ("{c} hair" if "hair_tone" in self.named else "")
        return style.replace("{c}", self.say("hair_tone")).replace("  ", " ")

    def parts(self) -> dict[str, str]:
        """The fields of a voice."""
        age, sex = (self.traits[name] if name in self.named else "" for name in ("age", "sex"))
        noun = self.word(WORDS["who"]["-".join(filter(None, (age, sex))) or "any"])
        worn = [self.thing("headwear", "headwear_hue"), self.thing("eyes"), self.thing("cloak", "cloak")]
        worn += [self.thing("garb", "motif", "garb_hue"), self.thing("sash", "sash")]
        worn = [*worn, self.thing("legs", "legs_hue"), self.thing("shoes", "shoes_hue")]
        return {
            "who": " ".join(filter(None, ("a", self.say("build"), noun))),
            "worn": _join(worn),
            "rising": _join(worn[::-1]),
            "has": _join([self.hair(), self.thing("beard")]),
            "load": _join([self.thing("load"), self.thing("held")]),
            "his": {"man": "his", "woman": "her", "": "their"}[sex],
        }


def _join(phrases: Sequence[str]) -> str:
    """Phrases as "one, two and three", without those that are empty."""
    said = [phrase for phrase in phrases if phrase]
    return " and ".join(filter(None, (", ".join(said[:-1]), *said[-1:])))
