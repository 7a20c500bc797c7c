"""How the caption writers put their phrases together: one function per style.

A style gets `Parts`, the phrases of one picture, any of which may be missing, and returns sentences in lower case
without full stops. Articles are always written "a"; `finish` turns them into "an" where they must be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from train.pedestrians import phrases
from train.pedestrians.people import Domain
from train.pedestrians.phrases import SHELVES, SIMPLE, Words

T = TypeVar("T")


class Dice:
    """Uniform numbers drawn from a generator in blocks, for a single draw costs as much as a block."""

    __slots__ = ("_numbers", "_plain", "_rng", "_shared", "domain")

    def __init__(self, rng: np.random.Generator, domain: Domain) -> None:
        self.domain: Final = domain
        self._plain, self._shared = SHELVES[domain][0], sum(SHELVES[domain][:2])
        self._rng = rng
        self._numbers: Iterator[float] = iter(())

    def roll(self) -> float:
        """One number in [0, 1)."""
        for number in self._numbers:
            return number
        self._numbers = iter(self._rng.random(96).tolist())
        return next(self._numbers)

    def chance(self, p: float) -> bool:
        """True in a share `p` of the calls."""
        return self.roll() < p

    def pick(self, items: Sequence[T]) -> T:
        """One of `items`, all equally likely."""
        return items[int(self.roll() * len(items))]

    def word(self, words: Words) -> str:
        """A shelf by the habits of the domain (`SHELVES`), then one of its words."""
        roll = self.roll()
        return self.pick(words.plain if roll < self._plain else words.shared if roll < self._shared else words.street)


@dataclass(frozen=True, slots=True)
class Parts:
    """What one caption says, as phrases; an empty one is not said. Noun phrases carry their article ("a cap")."""

    person: str
    name: str
    pronoun: str  # "he", "she", or "the person" when the sex is not said
    hair: str  # "short black hair"
    skin: str  # "dark skin"
    head: tuple[str, ...]  # headgear, glasses, scarf
    top: str
    lower: str
    shoes: str
    carry: tuple[str, ...]  # "carrying a red bag", "holding a phone"
    load: tuple[str, ...]  # the same things without the verb
    scene: str  # "seen from behind", "walking to the left"

    @property
    def look(self) -> tuple[str, ...]:
        """Skin and hair."""
        return tuple(x for x in (self.skin, self.hair) if x)

    @property
    def clothes(self) -> tuple[str, ...]:
        """Garments but headgear and shoes."""
        return tuple(x for x in (self.top, self.lower) if x)

    @property
    def feet(self) -> tuple[str, ...]:
        """The shoes, if said."""
        return (self.shoes,) if self.shoes else ()

    @property
    def whose(self) -> str:
        """The possessive before a part of the body."""
        return {"he": "his", "she": "her"}.get(self.pronoun, "the")


Style = Callable[[Parts, Dice], list[str]]


def join(items: Sequence[str], last: str = " and ") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return last.join(filter(None, (", ".join(items[:-1]), items[-1]))) if items else ""


def bare(phrase: str) -> str:
    """The phrase as in a telegram: without articles."""
    return _ARTICLE.sub("", phrase)


def finish(sentences: Sequence[str], *, lower_case: bool) -> str:
    """Sentences to a caption: "an" before vowels, single spaces, capitals unless `lower_case`, full stops."""
    text = [_AN.sub("an ", " ".join(sentence.split())) for sentence in sentences if sentence]
    return " ".join(f"{s if lower_case else s[0].upper() + s[1:]}." for s in text)


_ARTICLE: Final = re.compile(r"\b(?:an?|the) ")
_AN: Final = re.compile(r"\ba (?=[aeiou])")


def _does(participles: Sequence[str], dice: Dice) -> str:
    """Participle phrases as one predicate: "is wearing a cap and holding a cup", or "wears a cap and holds a cup"."""
    merged: list[tuple[str, list[str]]] = []
    for phrase in participles:
        verb, _, rest = phrase.partition(" ")
        if merged and merged[-1][0] == verb and verb in SIMPLE:
            merged[-1][1].append(rest)
        else:
            merged.append((verb, [rest]))
    simple = all(verb in SIMPLE for verb, _ in merged) and dice.chance(0.5)
    does = [f"{SIMPLE[verb] if simple else verb} {join(rest)}" for verb, rest in merged]
    return join(does) if simple else f"is {join(does)}" if does else ""


def _has(things: Sequence[str]) -> str:
    return f"has {join(things)}" if things else ""


def _wearing(dice: Dice, things: Sequence[str], *, small: bool = False) -> str:
    """`small`: they begin with a hat or glasses, in which nobody is dressed."""
    return f"{dice.word(phrases.WEAR_SMALL if small else phrases.WEAR)} {join(things)}" if things else ""


def _and(*clauses: str) -> str:
    return join([c for c in clauses if c])


def _person(parts: Parts) -> str:
    return f"{parts.person} with {join(parts.look)}" if parts.look else parts.person


def _scene(parts: Parts) -> tuple[str, ...]:
    return (parts.scene,) if parts.scene else ()


def flowing(parts: Parts, dice: Dice) -> list[str]:
    """One long sentence: "a man with short hair wearing a red shirt and jeans, carrying a bag"."""
    early = bool(parts.scene) and dice.chance(0.5)
    text = _person(parts)
    if early:
        text = f"{parts.person} {parts.scene}" + (f" with {join(parts.look)}" if parts.look else "")
    below = (*parts.clothes, *parts.feet)
    down = dice.chance(0.5) or not below
    worn = _wearing(dice, (*parts.head, *below) if down else (*below, *parts.head), small=down and bool(parts.head))
    if worn:
        text += (", " if early else " ") + worn
    if parts.carry:
        # "wearing jeans and wearing a backpack" would be one "wearing" too many.
        carry = [f"with {c.removeprefix('wearing ')}" if c.startswith("wearing ") else c for c in parts.carry]
        text += (", " if carry[0].startswith("with ") or dice.chance(0.5) else " and ") + join(carry)
    if parts.scene and not early:
        text += f", {parts.scene}"
    return [text]


def in_sentences(parts: Parts, dice: Dice) -> list[str]:
    """Full sentences, clothes before the rest: "a man is wearing .... he has .... he carries ...."."""
    wears = _does([_wearing(dice, parts.clothes)], dice) if parts.clothes else ""
    head = _does([_wearing(dice, parts.head, small=True)], dice) if parts.head else ""
    out = [f"{parts.person} {wears}" if wears else f"this is {parts.person}"]
    if parts.shoes and dice.chance(0.5):
        last = _and(f"has {parts.shoes} on {parts.whose} feet", _does(parts.carry, dice))
    else:
        last = _does([*(f"wearing {shoes}" for shoes in parts.feet), *parts.carry], dice)
    out += [f"{parts.pronoun} {clause}" for clause in (_and(_has(parts.look), head), last) if clause]
    if parts.scene:
        out.append(f"{parts.pronoun} is {parts.scene}")
    return out


def head_to_toe(parts: Parts, dice: Dice) -> list[str]:
    """From the hair down to the shoes, things in hand last."""
    head = f"is wearing {join(parts.head)}" if parts.head else ""
    above = _and(_has(parts.look), head, f"is {parts.scene}" if parts.scene else "")
    top = parts.top
    if top and "underneath" not in top:
        # Never "a tank top on top".
        top += " on top" if " top" not in top and dice.chance(0.5) else " on the upper body"
    lower = f"{parts.lower} below" if top and parts.lower and dice.chance(0.3) else parts.lower
    # Without a top the feet go untold, or a dress would be on them too.
    shoes = f"{parts.shoes} on {parts.whose} feet" if top and parts.shoes else parts.shoes
    body = _and(top, lower, shoes)
    out = [f"{parts.person} {above}"] if above else []
    if body:
        out.append(f"{parts.pronoun if above else parts.person} has {body}")
    elif not above:
        out.append(f"this is {parts.person}")
    if parts.carry:
        out.append(f"{parts.pronoun} {_does(parts.carry, dice)}")
    return out


def clothes_first(parts: Parts, dice: Dice) -> list[str]:
    """What is worn, and only then by whom."""
    worn = (*parts.clothes, *parts.feet)
    if not worn:
        return flowing(parts, dice)
    also = f"{parts.pronoun} {_does([_wearing(dice, parts.head, small=True)], dice)}" if parts.head else ""
    acts = (*parts.carry, *_scene(parts))
    if acts and dice.chance(0.6):
        has = _has(parts.load) if acts[0].startswith("wearing ") else ""
        does = _and(has, f"is {parts.scene}" if parts.scene else "") if has else _does(acts, dice)
        return [f"{_wearing(dice, worn)}, {_person(parts)} {does}", also]
    text = f"{join(worn)} worn by {_person(parts)}"
    return [text + (dice.pick((" ", ", ")) + join(acts) if acts else ""), also]


def terse(parts: Parts, dice: Dice) -> list[str]:
    """A list with commas: "man, short black hair, red shirt, blue jeans"."""
    hands = parts.load if dice.chance(0.5) else parts.carry
    items = [parts.person, *parts.look, *parts.head, *parts.clothes, *parts.feet, *hands]
    if parts.scene:
        items.insert(1 if dice.chance(0.4) else len(items), parts.scene)
    return [", ".join(item.removeprefix("a ") for item in items)]


def pointing(parts: Parts, dice: Dice) -> list[str]:
    """Chatty, about the picture: "there is a man walking to the left. he wears ...."."""
    out = [f"{dice.word(phrases.PICTURE)} {_person(parts)}" + (f" {parts.scene}" if parts.scene else "")]
    worn, rest = [*parts.clothes, *parts.feet], list(parts.carry)
    if worn and dice.chance(0.4):
        worn += parts.head
    elif parts.head:
        rest.insert(0, _wearing(dice, parts.head, small=True))
    if worn:
        out.append(f"{parts.pronoun} {_does([_wearing(dice, worn)], dice)}")
    if rest:
        does = _does(rest, dice)
        if worn and dice.chance(0.5):
            does = f"is also {does[3:]}" if does.startswith("is ") else f"also {does}"
        out.append(f"{parts.pronoun} {does}")
    return out


def telegram(parts: Parts, dice: Dice) -> list[str]:
    """Fragments without articles: "slim man. black hair. red shirt, jeans"."""
    groups = [(parts.person,), parts.look, (*parts.head, *parts.clothes, *parts.feet), parts.carry]
    if dice.chance(0.4):
        groups = [(parts.person, *parts.look), parts.head, (*parts.clothes, *parts.feet), parts.load]
    groups.insert(1 if dice.chance(0.3) else 4, _scene(parts))
    return [bare(", ".join(group)) for group in groups if group]


def log(parts: Parts, dice: Dice) -> list[str]:
    """A guard's log: "subject: slim male, black hair. wearing ...., last seen walking left"."""
    out = [f"{dice.word(phrases.LOG)}: " + ", ".join((bare(parts.person), *map(bare, parts.look)))]
    worn = [bare(x) for x in (*parts.clothes, *parts.head, *parts.feet)]
    if worn:
        out.append(dice.pick(("wearing ", "clothing: ", "dressed in ", "")) + ", ".join(worn))
    last = [bare(c) for c in parts.carry]
    if parts.scene:
        last.insert(0, f"last {parts.scene}" if parts.scene.startswith("seen") else f"last seen {parts.scene}")
    if last:
        out.append(", ".join(last))
    return out


def seeking(parts: Parts, dice: Dice) -> list[str]:
    """Somebody is looked for: "looking for a lady in a red coat. she has ...."."""
    first = f" in {join(parts.clothes, dice.pick((' and ', ' with ')))}" if parts.clothes else ""
    out = [f"{dice.word(phrases.SEEK)} {parts.person}{first}"]
    has = join((*parts.look, *parts.head, *parts.feet))
    if has:
        out.append(f"{parts.pronoun} has {has}")
    if parts.carry or parts.scene:
        last = join((*parts.carry, *_scene(parts)))
        guess = "was " if last.startswith("seen") else dice.pick(("may be ", "was ", "should be ", "probably "))
        out.append(guess + last)
    return out


def slang(parts: Parts, dice: Dice) -> list[str]:
    """Casual: "this dude is rocking a tee with jeans, got a brolly too"."""
    this = "this " + parts.person.removeprefix("a ")
    plus = f" {dice.word(phrases.PLUS)} "
    worn = join((*parts.clothes, *parts.feet), plus)
    out = [f"{this} is {dice.word(phrases.WEAR)} {worn}" if worn else f"check out {this}"]
    got = join((*parts.look, *parts.head, *parts.load))
    if got:
        out.append(dice.pick((f"got {got} too", f"{parts.pronoun} has got {got}", f"also got {got}")))
    if parts.scene:
        out.append(dice.pick(("", "just ")) + parts.scene)
    return out


def upwards(parts: Parts, dice: Dice) -> list[str]:
    """From the shoes up to the hair."""
    worn = (*parts.feet, *parts.clothes[::-1])
    out = [f"{join(worn)} on {parts.person}" if worn else f"this is {parts.person}"]
    up = (*parts.head, *((parts.hair,) if parts.hair else ()))
    if up and not parts.skin and dice.chance(0.5):
        out.append(f"{join(up)} further up")
    elif up or parts.skin:
        out.append(f"{parts.pronoun} also has {join((*parts.head, *parts.look))}")
    last = (*parts.carry, *_scene(parts))
    if last:
        out.append(f"{parts.pronoun} is {join(last)}")
    return out


def rambling(parts: Parts, dice: Dice) -> list[str]:
    """Everything in one breath, joined with "and"."""
    text = f"{dice.word(phrases.SPOT)} {parts.person}" + (f" {parts.scene}" if parts.scene else "")
    if parts.look:
        text += f" with {join(parts.look)}"
    pieces = []
    if parts.clothes:
        pieces.append(f"{parts.pronoun} had {join(parts.clothes)} on")
    rest = (*parts.head, *parts.feet, *parts.load)
    if rest:
        pieces.append(f"{dice.pick(('also ', 'then '))}{join(rest, ' and ')}")
    return [" and ".join((text, *pieces))]
