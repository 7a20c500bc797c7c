"""Says what a picture of a synthetic person shows, in the manner of the annotators of person search data sets.

`facts` decides which attributes a caption says (only what `visible` allows), `describe` writes it. The tables at
the top decide how much is said, hence how hard the benchmark is; `phrases` holds the words, `sentences`
the styles.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from train.pedestrians import phrases, sentences
from train.pedestrians.people import Domain, Person, Shot, visible
from train.pedestrians.sentences import Dice, Parts, Style

SAID: Final[dict[str, float]] = {
    "sex": 0.94,
    "age": 0.22,
    "build": 0.1,
    "skin": 0.07,
    "hair": 0.55,
    "headgear": 0.6,
    "glasses": 0.35,
    "scarf": 0.4,
    "upper": 0.92,
    "pattern": 0.5,
    "plain": 0.03,
    "sleeves": 0.22,
    "outer": 0.85,
    "lower": 0.88,
    "shoes": 0.5,
    "bag": 0.75,
    "carried": 0.5,
}
"""How often an average annotator says a visible thing ("plain": the pattern of a garment without one)."""

KIND_OR_COLOUR: Final[dict[str, tuple[float, float]]] = {
    "hair": (0.3, 0.3),
    "headgear": (0.3, 0.1),
    "upper": (0.14, 0.16),
    "outer": (0.16, 0.06),
    "lower": (0.18, 0.08),
    "shoes": (0.2, 0.35),
    "bag": (0.3, 0.14),
}
"""Of a thing that is said: how often its kind (hair: style) alone, how often its colour alone; else both."""

FEWEST, MOST = 8, 11
"""A caption says at least and at most so many attributes (fewer only when fewer are to be seen)."""

SCENE: Final = 0.3
"""How often the view or the walk is said by an average annotator."""

_DETAILS: Final[dict[str, tuple[str, str]]] = {
    "hair": ("hair_style", "hair_colour"),
    "headgear": ("headgear", "headgear_colour"),
    "upper": ("upper", "upper_colour"),
    "outer": ("outer", "outer_colour"),
    "lower": ("lower", "lower_colour"),
    "shoes": ("shoes", "shoe_colour"),
    "bag": ("bag", "bag_colour"),
}
_SINGLE: Final[tuple[str, ...]] = ("sex", "age", "build", "skin", "glasses", "scarf", "pattern", "sleeves", "carried")
ATTRIBUTES: Final = (*_SINGLE, *(name for pair in _DETAILS.values() for name in pair))
"""Every attribute a caption can say."""
_THING_OF: Final = {name: name for name in _SINGLE} | {n: thing for thing, pair in _DETAILS.items() for n in pair}


@dataclass(frozen=True, slots=True)
class Annotator:
    """A style, and habits: factors on `SAID` for what this annotator looks at more or less than others."""

    style: Style
    habits: Mapping[str, float] = field(default_factory=dict)
    scene: float = SCENE
    lower_case: float = 0.0


ANNOTATORS: Final[dict[Domain, tuple[Annotator, ...]]] = {
    "studio": (
        Annotator(sentences.flowing),
        Annotator(sentences.in_sentences, {"shoes": 1.2, "sleeves": 1.4, "age": 0.6}),
        Annotator(sentences.head_to_toe, {"hair": 1.5, "headgear": 1.3, "glasses": 1.5, "shoes": 1.3, "bag": 0.9}),
        Annotator(sentences.clothes_first, {"hair": 0.7, "pattern": 1.4, "sleeves": 1.4, "build": 0.5}),
        Annotator(sentences.terse, {"age": 0.7, "scarf": 1.3, "skin": 0.5}, lower_case=0.2),
        Annotator(sentences.pointing, {"age": 1.6, "build": 1.8, "carried": 1.4, "shoes": 0.7}, scene=0.5),
    ),
    "street": (
        Annotator(sentences.flowing, {"hair": 0.8, "shoes": 0.8}),
        Annotator(sentences.log, {"build": 2.0, "skin": 2.0, "age": 1.5, "shoes": 0.9}, scene=0.5),
        Annotator(sentences.seeking, {"age": 1.4, "hair": 1.3, "sleeves": 0.7}),
        Annotator(sentences.slang, {"shoes": 1.5, "glasses": 1.5, "headgear": 1.2, "sleeves": 0.5}, lower_case=0.3),
        Annotator(sentences.upwards, {"shoes": 1.6, "build": 0.6}),
        Annotator(sentences.telegram, {"skin": 0.5, "bag": 1.1}, lower_case=0.5),
        Annotator(sentences.rambling, {"carried": 1.4, "hair": 0.8}, lower_case=0.6),
        Annotator(sentences.pointing, {"age": 1.3, "carried": 1.2, "shoes": 0.8}, scene=0.5),
    ),
}


def facts(person: Person, shot: Shot, rng: np.random.Generator) -> tuple[str, ...]:
    """The attributes that `describe` says when it is given `rng` in the same state, in the order of `ATTRIBUTES`."""
    return _plan(person, shot, Dice(rng, shot.domain))[1]


def describe(person: Person, shot: Shot, rng: np.random.Generator) -> str:
    """One caption of one picture by a random annotator of its domain: one or more sentences, about 20 words.

    Everything said is visible in the shot and true. Two calls in a row give different captions.
    """
    dice = Dice(rng, shot.domain)
    annotator, said = _plan(person, shot, dice)
    scene = _scene(shot, dice) if dice.chance(annotator.scene) else ""
    text = annotator.style(_parts(person, frozenset(said), scene, dice), dice)
    return sentences.finish(text, lower_case=dice.chance(annotator.lower_case))


def walking(shot: Shot) -> bool:
    """Whether the legs are clearly apart (`Shot.stride` is the phase of the step, `Shot.gait` its width)."""
    return shot.gait * abs(math.sin(2 * math.pi * shot.stride)) > 0.35


def vocabulary(domain: Domain) -> frozenset[str]:
    """Every word (run of letters, in lower case) that annotators of `domain` can say."""
    return frozenset(word for text in phrases.sayable(domain) for word in re.findall("[a-z]+", text.lower()))


def _plan(person: Person, shot: Shot, dice: Dice) -> tuple[Annotator, tuple[str, ...]]:
    annotator = dice.pick(ANNOTATORS[shot.domain])
    weight = {}
    for name in visible(person, shot):
        thing = _THING_OF[name]
        value = getattr(person, name)
        if value == "none" and name != "sleeves":
            continue
        key = "plain" if value == "plain" else thing
        weight[name] = min(0.98, SAID[key] * annotator.habits.get(thing, 1.0))
    said = {name for name in _SINGLE if name in weight and dice.chance(weight[name])}
    for thing, (kind, colour) in _DETAILS.items():
        seen = [name for name in (kind, colour) if name in weight]
        if not seen or not dice.chance(weight[seen[0]]):
            continue
        alone, roll = KIND_OR_COLOUR[thing], dice.roll()
        if len(seen) == 2 and roll < sum(alone):
            seen = [kind] if roll < alone[0] else [colour]
        said.update(seen)
    score = {name: weight[name] * (0.3 + dice.roll()) for name in ATTRIBUTES if name in weight}
    order = sorted(score, key=lambda name: score[name])
    for name in order[::-1]:
        if len(said) >= FEWEST:
            break
        said.add(name)
    for name in order:
        if len(said) <= MOST:
            break
        said.discard(name)
    if person.age == "child" and "sex" in said:
        said.add("age")  # "boy" and "girl" say both
    return annotator, tuple(name for name in ATTRIBUTES if name in said)


def _scene(shot: Shot, dice: Dice) -> str:
    if walking(shot) and dice.chance(0.6):
        walk = dice.word(phrases.WALK)
        return f"{walk} {dice.word(phrases.WALK_TO[shot.view])}" if walk == "heading" or dice.chance(0.7) else walk
    return dice.word(phrases.SEEN[shot.view])


class _Speaker:
    """Turns said attributes into noun phrases."""

    __slots__ = ("dice", "person", "said")

    def __init__(self, person: Person, said: frozenset[str], dice: Dice) -> None:
        self.person, self.said, self.dice = person, said, dice

    def say(self, attribute: str) -> str:
        """The said value of `attribute` in this annotator's words, "" if it is not said."""
        if attribute not in self.said:
            return ""
        return self.dice.word(phrases.VALUES[attribute][getattr(self.person, attribute)])

    def thing(self, attribute: str, colour: str, *, before: str = "", between: str = "", after: str = "") -> str:
        """A garment or bag with its colour and article, adjectives on either side of the colour; "" if untold."""
        value = getattr(self.person, attribute)
        tint, noun = self.say(colour), self.say(attribute)
        if not (tint or noun or before or between or after):
            return ""
        plural = value in phrases.PLURAL
        if not noun:
            noun = self.dice.word(phrases.ANY["dress" if value == "dress" else attribute])
            plural = noun in phrases.UNCOUNTED
        return " ".join(filter(None, ("" if plural else "a", before, tint, between, noun, after)))

    def top(self) -> str:
        """The upper body: the outer layer over what is under it."""
        before, between, after = self.say("sleeves"), self.say("pattern"), []
        if before.startswith("with "):
            after.append(before.removeprefix("with "))
            before = ""
        if between.startswith("with "):
            after.append(between.removeprefix("with "))
            between = ""
        if between and (self.person.pattern == "plain" or self.dice.chance(0.3)):
            before, between = f"{before} {between}", ""
        behind = f"with {sentences.join(after)}" if after else ""
        under = self.thing("upper", "upper_colour", before=before, between=between, after=behind)
        outer = self.thing("outer", "outer_colour")
        if not (outer and under):
            return outer or under
        if "with " in under or self.dice.chance(0.75):
            return f"{outer} over {under}"
        return f"{outer} with {under} underneath"

    def look(self) -> tuple[str, str]:
        """The hair as (adjective, noun phrase), at least one of them empty."""
        colour = self.say("hair_colour")
        if "hair_style" in self.said:
            style = self.say("hair_style")
            if style.startswith("with "):
                return "", style.removeprefix("with ")
            if self.person.hair_style == "bald":
                return style, ""
            return "", style.replace("{c}", colour)
        if colour and "-" not in colour and self.dice.chance(0.25):
            return f"{colour}-haired", ""
        return "", f"{colour} hair" if colour else ""

    def carry(self, whose: str) -> list[tuple[str, str]]:
        """Bag and thing in hand, each as (participle, noun phrase)."""
        out = []
        bag = self.thing("bag", "bag_colour")
        if bag:
            kind = self.person.bag if "bag" in self.said else ""
            verb = self.dice.word(phrases.BAG_VERBS[kind])
            if kind == "backpack" and verb in ("carrying", "wearing") and self.dice.chance(0.35):
                bag += f" on {whose} back"
            out.append((verb, bag))
        if "carried" in self.said:
            out.append((self.dice.word(phrases.HOLD), f"a {self.say('carried')}"))
        return out


def _merged(carry: list[tuple[str, str]]) -> tuple[str, ...]:
    """Participle phrases; one verb serves both: "carrying a bag and a cup"."""
    if len(carry) == 2 and carry[0][0] == carry[1][0]:
        return (f"{carry[0][0]} {carry[0][1]} and {carry[1][1]}",)
    return tuple(f"{verb} {what}" for verb, what in carry)


def _parts(person: Person, said: frozenset[str], scene: str, dice: Dice) -> Parts:
    speaker = _Speaker(person, said, dice)
    key = (person.age if "age" in said else "", person.sex if "sex" in said else "")
    name = dice.word(phrases.PEOPLE[key])
    of, skin, adjectives = "", "", []
    hair_adjective, hair = speaker.look()
    for trait in (speaker.say("build"), speaker.say("skin")):
        if trait.startswith("of "):
            of = trait
        elif trait.startswith("with "):
            skin = trait.removeprefix("with ")
        else:
            adjectives.append(trait)
    head = [speaker.thing("headgear", "headgear_colour"), speaker.say("glasses")]
    if "scarf" in said:
        head.append(f"a {speaker.say('scarf')} {dice.word(phrases.SCARF)}")
    shoes = speaker.thing("shoes", "shoe_colour")
    carry = speaker.carry({"man": "his", "woman": "her", "": "the"}[key[1]])
    return Parts(
        person=" ".join(filter(None, ("a", *adjectives, hair_adjective, name, of))),
        name=name,
        pronoun={"man": "he", "woman": "she", "": f"the {name}"}[key[1]],
        hair=hair,
        skin=skin,
        head=tuple(filter(None, head)),
        top=speaker.top(),
        lower=speaker.thing("lower", "lower_colour"),
        shoes=f"a pair of {shoes}" if shoes and "shoes" in said and dice.chance(0.1) else shoes,
        carry=_merged(carry),
        load=tuple(what for _, what in carry),
        scene=scene,
    )
