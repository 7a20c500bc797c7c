"""The words of the caption writers: for every value of every attribute, and for the sentences around them.

Each entry has three shelves (`Words`): `plain` words, `shared` rarer ones and `street` ones. How often an annotator
of a domain reaches for which shelf is decided by `SHELVES` alone, which makes it the one knob of the domain gap:
a model trained on `studio` has read the plain words often, the shared ones now and then, the street ones never.

No word means two values of one attribute ("navy" is blue, "olive" is green, "vest" is the outer layer,
never the tank top), or a caption could not be judged true or false.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from train.pedestrians.people import Domain

SHELVES: Final[dict[Domain, tuple[float, float, float]]] = {
    "studio": (0.89, 0.11, 0.0),
    "street": (0.46, 0.43, 0.11),
}
"""Domain -> how often a word comes from the plain, the shared, the street shelf. Each sums to 1."""


@dataclass(frozen=True, slots=True)
class Words:
    """Ways to say one thing, from the most common shelf to the one only `street` uses. No shelf is empty."""

    plain: tuple[str, ...]
    shared: tuple[str, ...]
    street: tuple[str, ...]

    def of(self, domain: Domain) -> tuple[str, ...]:
        """All that annotators of `domain` can say."""
        return tuple(w for shelf, p in zip((self.plain, self.shared, self.street), SHELVES[domain], strict=True)
                     if p > 0 for w in shelf)  # fmt: skip


def _words(plain: str, shared: str, street: str) -> Words:
    return Words(*(tuple(shelf.split(", ")) for shelf in (plain, shared, street)))


COLOURS: Final[dict[str, Words]] = {
    "black": _words("black", "jet-black, ebony", "onyx, inky, pitch-black, coal-black"),
    "white": _words("white", "snowy, snow-white", "pearl, chalky, milky, alabaster"),
    "grey": _words("grey", "gray, charcoal", "slate, graphite, ash, smoky"),
    "blue": _words("blue", "navy, azure", "cobalt, indigo, sapphire, cerulean"),
    "red": _words("red", "scarlet, crimson", "ruby, cherry, vermilion, cardinal"),
    "green": _words("green", "olive, emerald", "jade, mossy, pine-green, lime"),
    "yellow": _words("yellow", "lemon, golden", "mustard, canary, amber, sunny"),
    "pink": _words("pink", "rose, rosy", "fuchsia, magenta, bubblegum, salmon"),
    "brown": _words("brown", "chocolate, chestnut", "coffee, mocha, umber, walnut"),
    "beige": _words("beige", "cream, sand-coloured", "camel, oatmeal, biscuit, fawn"),
}

HAIR_COLOURS: Final[dict[str, Words]] = {
    "black": _words("black", "jet-black, raven", "inky, ebony, pitch-black"),
    "brown": _words("brown", "chestnut, brunette", "hazel, mousy, walnut"),
    "blond": _words("blond, blonde", "golden, fair", "flaxen, platinum, straw-coloured"),
    "grey": _words("grey, gray", "silver, silvery", "ashen, greying, frosted"),
    "red": _words("red", "ginger, auburn", "copper, coppery, carroty"),
}

# `{c}` is where the colour stands, if it is said.
HAIR_STYLES: Final[dict[str, Words]] = {
    "bald": _words("bald, with a bald head", "bald-headed, with a shaved head", "hairless, with a shiny pate, shaven"),
    "short": _words("short {c} hair", "cropped {c} hair, {c} hair cut short", "clipped {c} hair, a {c} crop"),
    "long": _words(
        "long {c} hair", "flowing {c} hair, long loose {c} hair", "long {c} locks, a long {c} mane, lengthy {c} hair"
    ),
    "ponytail": _words(
        "a {c} ponytail, {c} hair in a ponytail, {c} hair tied in a ponytail",
        "{c} hair pulled back in a ponytail, {c} hair in a pony tail",
        "{c} hair swept into a tail, {c} hair in a scrunchie",
    ),
    "bun": _words(
        "a {c} bun, {c} hair in a bun, {c} hair tied in a bun",
        "{c} hair up in a knot, a {c} topknot",
        "a {c} chignon, a {c} updo, {c} hair pinned up",
    ),
}

# (age or "", sex or "") -> nouns. A man may be of any age but a child, who is always a boy, a girl or a child.
PEOPLE: Final[dict[tuple[str, str], Words]] = {
    ("", "man"): _words("man", "guy, gentleman, male", "dude, bloke, chap, fella, gent"),
    ("", "woman"): _words("woman", "lady, female", "gal, dame"),
    ("", ""): _words("person", "pedestrian, individual", "passerby, stranger, walker"),
    ("child", "man"): _words("boy, little boy", "lad, young boy", "schoolboy, laddie"),
    ("child", "woman"): _words("girl, little girl", "lass, young girl", "schoolgirl, lassie, missy"),
    ("child", ""): _words("child, kid", "youngster, small child", "tot, nipper, kiddo, minor"),
    ("adult", "man"): _words("adult man", "grown man, adult male", "grown-up fella, grownup bloke"),
    ("adult", "woman"): _words("adult woman", "grown woman, adult female", "grown-up gal, grownup dame"),
    ("adult", ""): _words("adult", "grown person, grown-up", "grownup"),
    ("elderly", "man"): _words("elderly man, old man", "older man, aged man", "grandpa, granddad, old geezer"),
    ("elderly", "woman"): _words("elderly woman, old woman", "older lady, aged woman", "granny, grandma, old dear"),
    ("elderly", ""): _words("elderly person, old person", "senior, aged person", "pensioner, oldster, retiree"),
}

# Said before the noun, or behind it when they begin with "of" or "with".
BUILDS: Final[dict[str, Words]] = {
    "slim": _words("slim, thin, of slim build", "slender, lean", "skinny, wiry, weedy"),
    "average": _words("of average build, of medium build", "of normal build", "of regular build, average-sized"),
    "heavy": _words("heavy, overweight, of heavy build", "heavyset, stout", "chubby, burly, portly, tubby"),
}
SKINS: Final[dict[str, Words]] = {
    "light": _words(
        "light-skinned, with light skin", "with pale skin, pale-skinned", "with a creamy complexion, pasty"
    ),
    "tan": _words("with tan skin, tan-skinned", "tanned, with bronze skin", "suntanned, with a swarthy complexion"),
    "dark": _words("dark-skinned, with dark skin", "with a dark complexion", "with a dusky complexion, dusky"),
}

GARMENTS: Final[dict[str, dict[str, Words]]] = {
    "headgear": {
        "cap": _words("cap, baseball cap", "ball cap, peaked cap", "snapback, flat-brim, trucker cap"),
        "beanie": _words("beanie", "knitted beanie, toque", "skully, bobble, watchcap"),
        "hat": _words("hat", "brimmed hat, fedora", "trilby, stetson, panama"),
    },
    "upper": {
        "t-shirt": _words("t-shirt", "tee, tee-shirt", "tshirt, crewneck"),
        "shirt": _words("shirt", "button-up shirt, collared shirt", "button-down, poplin"),
        "sweater": _words("sweater", "pullover, jumper", "jersey, woolly, knit"),
        "hoodie": _words("hoodie", "hooded sweatshirt, hooded top", "hoody, hooded fleece"),
        "tank top": _words("tank top", "tank, singlet", "muscle top, racerback, cami"),
    },
    "outer": {
        "jacket": _words("jacket", "bomber jacket, windbreaker", "bomber, blouson, windcheater"),
        "coat": _words("coat", "overcoat, long coat", "trench, topcoat, greatcoat, mac"),
        "vest": _words("vest", "padded vest, gilet", "bodywarmer, puffer, waistcoat"),
    },
    "lower": {
        "trousers": _words("trousers, pants", "slacks, dress pants", "chinos, strides, pantaloons"),
        "jeans": _words("jeans", "denim jeans, denims", "dungarees, levis"),
        "shorts": _words("shorts", "knee-length shorts, bermuda shorts", "bermudas, boardshorts, cutoffs"),
        "skirt": _words("skirt", "flared skirt, pleated skirt", "mini, miniskirt"),
        "dress": _words("dress", "frock, gown", "sundress, pinafore"),
    },
    "shoes": {
        "sneakers": _words("sneakers, sports shoes", "trainers, running shoes", "kicks, runners, plimsolls"),
        "boots": _words("boots", "high boots, leather boots", "wellies, clodhoppers, stompers"),
        "sandals": _words("sandals", "open sandals, strappy sandals", "flip-flops, slides, jandals"),
        "dress shoes": _words("dress shoes, leather shoes", "formal shoes, smart shoes", "loafers, brogues, oxfords"),
    },
    "bag": {
        "backpack": _words("backpack", "rucksack, knapsack", "daypack, haversack, bookbag"),
        "handbag": _words("handbag", "purse, hand bag", "tote, clutch, pocketbook"),
        "shoulder bag": _words("shoulder bag", "crossbody bag, messenger bag", "satchel, sling, bandolier"),
        "suitcase": _words("suitcase", "trolley case, travel case", "wheelie, trolley, rollaboard"),
    },
    "carried": {
        "phone": _words("phone, cell phone", "smartphone, mobile phone", "mobile, handset, cellular"),
        "umbrella": _words("umbrella", "parasol, rain umbrella", "brolly, gamp, bumbershoot"),
        "cup": _words("cup", "paper cup, mug", "beaker, drink, latte"),
        "book": _words("book", "notebook, paperback", "novel, hardback, tome"),
    },
    "glasses": {
        "glasses": _words("glasses", "eyeglasses, spectacles", "specs, bifocals"),
        "sunglasses": _words("sunglasses", "shades, dark sunglasses", "sunnies, aviators, wayfarers"),
    },
}
PLURAL: Final = frozenset({"trousers", "jeans", "shorts", "sneakers", "boots", "sandals", "dress shoes"})
"""Garments whose every noun is a plural and takes no article."""

SCARF: Final = _words("scarf", "neck scarf, shawl", "muffler, bandana, neckerchief")

# What to say when only the colour of a thing is said.
ANY: Final[dict[str, Words]] = {
    "headgear": _words("headwear", "headgear", "lid"),
    "upper": _words("top", "upper garment", "topwear"),
    "outer": _words("outer layer", "outer garment", "outerwear"),
    "lower": _words("bottoms", "bottoms", "legwear"),
    "dress": _words("outfit", "garment", "getup"),
    "shoes": _words("shoes", "footwear", "footgear"),
    "bag": _words("bag", "carryall", "holdall, carrier"),
}
UNCOUNTED: Final = frozenset(
    {"headwear", "headgear", "topwear", "outerwear", "bottoms", "legwear", "shoes", "footwear", "footgear"}
)

PATTERNS: Final[dict[str, Words]] = {
    "plain": _words("plain", "solid", "unpatterned"),
    "striped": _words("striped, with stripes", "stripy, with horizontal stripes", "banded, with hoops, candy-striped"),
    "checked": _words("checked, checkered", "plaid, chequered", "tartan, gingham, with a lumberjack check"),
    "dotted": _words("dotted, with dots", "polka-dot, spotted", "speckled, with polka dots, spotty"),
    "logo": _words(
        "with a logo, with a logo on the chest",
        "with a graphic on the front, printed",
        "with an emblem on the chest, branded, with a motif",
    ),
}
SLEEVES: Final[dict[str, Words]] = {
    "short": _words("short-sleeved, with short sleeves", "short-sleeve, half-sleeved", "with sleeves to the elbow"),
    "long": _words("long-sleeved, with long sleeves", "long-sleeve, full-sleeved", "with sleeves to the wrist"),
    "none": _words("sleeveless", "with bare shoulders, with bare arms", "armless"),
}

VALUES: Final[dict[str, dict[str, Words]]] = {
    **GARMENTS,
    "build": BUILDS,
    "skin": SKINS,
    "hair_style": HAIR_STYLES,
    "hair_colour": HAIR_COLOURS,
    "pattern": PATTERNS,
    "sleeves": SLEEVES,
    **dict.fromkeys(("upper_colour", "outer_colour", "lower_colour", "shoe_colour", "bag_colour"), COLOURS),
    "headgear_colour": COLOURS,
    "scarf": COLOURS,
}
"""Attribute -> value -> words, for all but sex and age, which `PEOPLE` names together."""

# Doing something, as participles; "wearing" also as "is wearing" and, where `SIMPLE` knows it, "wears".
WEAR: Final = _words("wearing, dressed in", "clad in, sporting", "rocking, decked out in, kitted out in")
WEAR_SMALL: Final = _words("wearing", "sporting", "rocking")
HOLD: Final = _words("holding, carrying", "gripping, clutching", "grasping, brandishing, cradling")
BAG_VERBS: Final[dict[str, Words]] = {
    "": _words("carrying", "bearing", "toting, lugging"),
    "backpack": _words("carrying, wearing", "shouldering", "lugging, humping"),
    "handbag": _words("carrying, holding", "clutching", "toting, swinging"),
    "shoulder bag": _words("carrying, wearing", "bearing", "toting, slinging"),
    "suitcase": _words("pulling, carrying", "rolling, dragging", "wheeling, trundling, towing"),
}
SIMPLE: Final = {
    "wearing": "wears",
    "carrying": "carries",
    "holding": "holds",
    "pulling": "pulls",
    "sporting": "sports",
}

WALK: Final = _words("walking", "strolling, striding", "ambling, marching, strutting, heading")
WALK_TO: Final[dict[str, Words]] = {
    "front": _words("towards the camera", "forward, toward the viewer", "this way, straight at us"),
    "back": _words("away from the camera, away", "off into the distance", "the other way"),
    "left": _words("to the left", "left, towards the left side", "leftwards"),
    "right": _words("to the right", "right, towards the right side", "rightwards"),
}
SEEN: Final[dict[str, Words]] = {
    "front": _words("seen from the front, facing the camera", "facing forward", "facing us head-on"),
    "back": _words("seen from behind, seen from the back", "facing away", "seen from the rear"),
    "left": _words("facing left, seen from the side", "turned to the left", "in profile"),
    "right": _words("facing right, seen from the side", "turned to the right", "in profile"),
}

# How the annotators of some styles begin; see `sentences`.
PICTURE: Final = _words("there is, the picture shows, we can see", "the image shows, this is", "here we have, here is")
SEEK: Final = _words("looking for, please find", "searching for, trying to locate", "on the lookout for, hunting for")
LOG: Final = _words("subject, person seen", "target, description", "suspect, sighting, report")
SPOT: Final = _words("saw, just saw", "noticed, caught sight of", "clocked, ran into, came across")
PLUS: Final = _words("with, and", "plus, along with", "paired with, matched with")

STYLE_WORDS: Final[dict[Domain, str]] = {
    "studio": "a an and the of with in on by has is over underneath below also this pair hair haired he she his her "
    "back feet upper body top worn",
    "street": "a an and the of with in on has is over underneath also this pair hair haired he she his her back "
    "got had then was may be should probably further up too just last clothing check out",
}
"""The words that `sentences` and `captions` put between the phrases, by the styles of each domain."""


def sayable(domain: Domain) -> list[str]:
    """Every phrase, template and joining word that annotators of `domain` can say."""
    tables: list[dict[str, Words]] = [*VALUES.values(), ANY, BAG_VERBS, WALK_TO, SEEN]
    entries = [
        *PEOPLE.values(),
        SCARF,
        WEAR,
        WEAR_SMALL,
        HOLD,
        WALK,
        PICTURE,
        *(words for table in tables for words in table.values()),
    ]
    entries += [SEEK, LOG, SPOT, PLUS] if domain == "street" else []
    said = [phrase.replace("{c}", "") for words in entries for phrase in words.of(domain)]
    return [*said, *SIMPLE.values(), STYLE_WORDS[domain]]
