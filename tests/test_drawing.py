"""Pictures of synthetic people: every attribute drawn, nothing drawn that a shot hides, always the same bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageChops

from train.pedestrians.drawing import draw
from train.pedestrians.people import (
    CHOICES,
    HAIR_STYLES,
    VIEWS,
    Person,
    Shot,
    View,
    sample_person,
    sample_shot,
    visible,
)

PERSON = Person(
    pid=0,
    sex="woman",
    age="adult",
    build="average",
    skin="tan",
    hair_style="long",
    hair_colour="brown",
    headgear="cap",
    headgear_colour="red",
    glasses="glasses",
    scarf="none",
    upper="t-shirt",
    upper_colour="blue",
    pattern="logo",
    sleeves="short",
    outer="none",
    outer_colour="black",
    lower="jeans",
    lower_colour="black",
    shoes="sneakers",
    shoe_colour="white",
    bag="handbag",
    bag_colour="brown",
    carried="none",
    shade=(0.0, 0.0, 0.0, 0.0),
    body=(0.0, 0.0, 0.0, 0.0),
    stripe=0.3,
)
SHOT = Shot("studio", "front", 0.1, 0.5, 0, "none", 1.0, (0.0, 0.0, 1.0), 5)


def seen_from(view: View, **changes: object) -> Shot:
    return replace(SHOT, view=view, **changes)  # type: ignore[arg-type]


def same(first: Image.Image, second: Image.Image) -> bool:
    return ImageChops.difference(first, second).getbbox() is None


def values(attribute: str) -> list[str]:
    if attribute == "hair_style":
        return sorted({style for styles in HAIR_STYLES.values() for style in styles})
    if attribute == "sleeves":
        return ["none", "short", "long"]
    return list(CHOICES[attribute])


def wearing(attribute: str) -> Person:
    """Someone on whom `attribute` can be seen: a bag's colour needs a bag."""
    needs = {
        "outer_colour": {"outer": "jacket"},
        "hair_style": {"headgear": "none"},
        "pattern": {"upper_colour": "red"},
        "upper": {"pattern": "plain", "sleeves": "short"},
        "lower": {"lower_colour": "red"},
    }
    return replace(PERSON, **needs.get(attribute, {}))  # type: ignore[arg-type]


@pytest.mark.parametrize("domain", ["studio", "street"])
def test_a_picture_is_384_by_128_rgb_and_always_the_same(domain: str) -> None:
    for pid in range(6):
        person, shot = sample_person(3, pid), sample_shot(3, pid, pid, domain)  # type: ignore[arg-type]
        first = draw(person, shot)
        draw(sample_person(4, pid), SHOT)
        second = draw(person, shot)
        assert (first.mode, first.size) == ("RGB", (128, 384))
        assert first.tobytes() == second.tobytes()


def test_different_people_and_different_seeds_look_different() -> None:
    pictures = {draw(sample_person(3, pid), SHOT).tobytes() for pid in range(40)}
    assert len(pictures) == 40
    assert not same(draw(PERSON, SHOT), draw(PERSON, replace(SHOT, domain="street")))
    street = replace(SHOT, domain="street")
    assert not same(draw(PERSON, street), draw(PERSON, replace(street, seed=6)))


@pytest.mark.parametrize("attribute", [*CHOICES, "hair_style", "sleeves"])
def test_every_value_of_a_visible_attribute_changes_the_picture(attribute: str) -> None:
    person = wearing(attribute)
    pictures: dict[bytes, str] = {}
    for value in values(attribute):
        changed = replace(person, **{attribute: value})  # type: ignore[arg-type]
        assert attribute in visible(changed, SHOT) or value in ("none", "bald") or attribute == "scarf", value
        data = draw(changed, SHOT).resize((48, 128), Image.Resampling.BICUBIC).tobytes()
        assert data not in pictures, f"{attribute}: {value} looks like {pictures[data]}"
        pictures[data] = value


@pytest.mark.parametrize(
    ("attribute", "value", "shot", "base"),
    [
        ("glasses", "sunglasses", seen_from("back"), {}),
        ("pattern", "plain", seen_from("left"), {}),
        ("pattern", "plain", seen_from("back"), {}),
        ("bag", "none", seen_from("left"), {}),
        ("bag_colour", "yellow", seen_from("left"), {}),
        ("carried", "cup", seen_from("back"), {"carried": "book"}),
        ("upper_colour", "pink", seen_from("back"), {"outer": "coat"}),
        ("pattern", "striped", seen_from("right"), {"outer": "jacket"}),
        ("sleeves", "none", SHOT, {"outer": "jacket"}),
        ("lower_colour", "red", seen_from("back"), {"outer": "coat", "lower": "shorts"}),
        ("lower", "skirt", seen_from("left"), {"outer": "coat", "lower": "shorts"}),
        ("upper_colour", "pink", SHOT, {"lower": "dress"}),
        ("pattern", "dotted", SHOT, {"lower": "dress"}),
        ("hair_colour", "blond", SHOT, {"headgear": "beanie", "hair_style": "short"}),
        ("hair_style", "bun", SHOT, {"headgear": "hat", "hair_style": "bald"}),
        ("bag_colour", "yellow", SHOT, {"bag": "none"}),
    ],
)
def test_a_hidden_attribute_leaves_the_picture_alone(
    attribute: str, value: str, shot: Shot, base: dict[str, str]
) -> None:
    person = replace(PERSON, **base)  # type: ignore[arg-type]
    changed = replace(person, **{attribute: value})  # type: ignore[arg-type]
    assert attribute not in visible(person, shot)
    assert same(draw(person, shot), draw(changed, shot))


@pytest.mark.parametrize("occluder", ["bush", "car", "person"])
def test_an_occluder_covers_what_it_takes_from_the_caption(occluder: str) -> None:
    for top in (0.66, 0.9):
        shot = replace(SHOT, domain="street", occluder=occluder, occluder_top=top)
        assert not {"shoes", "shoe_colour"} & visible(PERSON, shot)
        assert same(draw(PERSON, shot), draw(replace(PERSON, shoe_colour="red", shoes="sandals"), shot))


def test_a_fence_and_a_pole_leave_the_clothes_to_be_seen() -> None:
    for occluder in ("fence", "pole"):
        shot = replace(SHOT, domain="street", occluder=occluder, occluder_top=0.6)
        difference = ImageChops.difference(draw(PERSON, shot), draw(replace(PERSON, lower_colour="red"), shot))
        assert np.count_nonzero(np.asarray(difference).max(axis=2) > 30) > 1500


@pytest.mark.parametrize("view", VIEWS)
def test_every_value_is_drawn_from_every_side(view: View) -> None:
    for attribute in (*CHOICES, "hair_style", "sleeves"):
        for number, value in enumerate(values(attribute)):
            person = replace(sample_person(9, number), **{attribute: value})  # type: ignore[arg-type]
            picture = draw(person, seen_from(view, camera=number % 6, stride=number / 8))
            assert picture.size == (128, 384)


@pytest.mark.parametrize("camera", range(6))
def test_the_street_is_darker_than_the_studio(camera: int) -> None:
    def brightness(domain: str) -> float:
        shots = [replace(SHOT, domain=domain, camera=camera, seed=seed) for seed in range(4)]  # type: ignore[arg-type]
        return float(np.mean([np.asarray(draw(PERSON, shot)).mean() for shot in shots]))

    assert brightness("street") < 0.8 * brightness("studio")


def test_the_figure_fills_the_frame_and_stays_within() -> None:
    """Found by changing the skin and the clothes: what then differs is the figure."""
    for pid in range(12):
        shot = sample_shot(5, pid, 0, "studio")
        person = replace(sample_person(5, pid), age="adult", outer="none")
        other = replace(
            person,
            upper_colour="pink" if person.upper_colour != "pink" else "black",
            shoe_colour="blue" if person.shoe_colour != "blue" else "red",
            skin="dark" if person.skin != "dark" else "light",
        )
        box = ImageChops.difference(draw(person, shot), draw(other, shot)).getbbox()
        assert box is not None
        assert box[1] < 120
        assert 330 < box[3] <= 384
        assert box[3] - box[1] > 230


def test_a_child_is_smaller_than_an_adult() -> None:
    def height(age: str) -> int:
        person = replace(PERSON, age=age, headgear="none", hair_style="bald")
        first = np.asarray(draw(person, SHOT), dtype=int)
        second = np.asarray(draw(replace(person, skin="dark"), SHOT), dtype=int)
        return int(np.flatnonzero(np.abs(first - second).max(axis=(1, 2)) > 20)[0])

    assert height("child") > height("adult") + 60
