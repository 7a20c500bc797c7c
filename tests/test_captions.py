"""What captions say is visible and true, and the two domains speak as differently as their tables say."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import chain
from typing import get_args

import numpy as np
import pytest

from train.pedestrians import phrases
from train.pedestrians.captions import ATTRIBUTES, FEWEST, MOST, describe, facts, vocabulary, walking
from train.pedestrians.people import CHOICES, HAIR_STYLES, Domain, Person, Shot, sample_person, sample_shot, visible

SEED = 907
DOMAINS: tuple[Domain, ...] = get_args(Domain)


@cache
def captioned(domain: Domain, count: int = 5000) -> tuple[tuple[Person, Shot, str, tuple[str, ...]], ...]:
    """`count` pictures of different people, each with a caption and the facts it states."""
    out = []
    for pid in range(count):
        person, shot = sample_person(SEED, pid), sample_shot(SEED, pid, pid % 4, domain)
        names = facts(person, shot, np.random.default_rng([SEED, pid]))
        out.append((person, shot, describe(person, shot, np.random.default_rng([SEED, pid])), names))
    return tuple(out)


def words_of(text: str) -> list[str]:
    """Runs of letters, without articles, so that "with a logo" is found in a telegram too."""
    return [word for word in re.findall("[a-z]+", text.lower()) if word not in ("a", "an", "the")]


def marks_of(phrase: str) -> Iterator[tuple[str, ...]]:
    """The runs of words that give a phrase away: "long {c} hair" is known by "long"."""
    for chunk in phrase.removeprefix("with ").split("{c}"):
        words = tuple(words_of(chunk))
        if words and words not in (("hair",), ("with",)):
            yield words


@cache
def lexicon() -> dict[tuple[str, ...], set[frozenset[tuple[str, str]]]]:
    """Run of words -> what it may say: sets of (attribute, value) pairs that are said together."""
    table: dict[tuple[str, ...], set[frozenset[tuple[str, str]]]] = {}
    for attribute, values in phrases.VALUES.items():
        for value, words in values.items():
            for run in chain.from_iterable(map(marks_of, words.of("street"))):
                table.setdefault(run, set()).add(frozenset({(attribute, value)}))
    for (age, sex), words in phrases.PEOPLE.items():
        pairs = frozenset(pair for pair in (("age", age), ("sex", sex)) if pair[1])
        for run in chain.from_iterable(map(marks_of, words.of("street"))):
            table.setdefault(run, set()).add(pairs)
    for pronoun, sex in (("he", "man"), ("his", "man"), ("she", "woman"), ("her", "woman")):
        table[(pronoun,)] = {frozenset({("sex", sex)})}
    return table


def readings(caption: str) -> Iterator[tuple[str, set[frozenset[tuple[str, str]]]]]:
    """The known runs of words in a caption, longest first at each place, with what they may say."""
    words, at = words_of(caption), 0
    longest = max(map(len, lexicon()))
    while at < len(words):
        for length in range(longest, 0, -1):
            run = tuple(words[at : at + length])
            if len(run) == length and run in lexicon():
                yield " ".join(run), lexicon()[run]
                break
        at += length


@pytest.mark.parametrize("domain", DOMAINS)
def test_says_only_what_is_visible(domain: Domain) -> None:
    for person, shot, caption, names in captioned(domain):
        assert set(names) <= visible(person, shot), caption
        assert not [n for n in names if n != "sleeves" and getattr(person, n) == "none"], caption


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_word_is_true_and_every_fact_is_said(domain: Domain) -> None:
    for person, _, caption, names in captioned(domain):
        true = {(name, getattr(person, name)) for name in names}
        said: set[tuple[str, str]] = set()
        for run, meanings in readings(caption):
            held = [pairs for pairs in meanings if pairs <= true]
            assert held, f"{run!r} is not true of {sorted(true)}: {caption}"
            said.update(chain.from_iterable(held))
        assert true <= said, f"{sorted(true - said)} is not said: {caption}"


def test_colours_stand_at_their_garments() -> None:
    """In a plain list no colour belongs to the next garment: each colour precedes its own thing."""
    checked = 0
    for person, _, caption, names in (*captioned("studio"), *captioned("street")):
        for kind, colour in (("lower", "lower_colour"), ("outer", "outer_colour"), ("bag", "bag_colour")):
            if not {kind, colour} <= set(names):
                continue
            tints = "|".join(map(re.escape, phrases.COLOURS[getattr(person, colour)].of("street")))
            nouns = "|".join(map(re.escape, phrases.GARMENTS[kind][getattr(person, kind)].of("street")))
            assert re.search(rf"\b(?:{tints}) (?:{nouns})\b", caption.lower()), caption
            checked += 1
    assert checked > 5000


def test_no_word_stands_for_two_values_of_one_attribute() -> None:
    for attribute, values in phrases.VALUES.items():
        counts = Counter(word for words in values.values() for word in set(words.of("street")))
        assert not [word for word, count in counts.items() if count > 1], attribute


def test_every_value_can_be_said() -> None:
    for attribute, values in CHOICES.items():
        if attribute in ("sex", "age"):
            assert {key[0 if attribute == "age" else 1] for key in phrases.PEOPLE} == {"", *values}
            continue
        assert set(phrases.VALUES[attribute]) >= set(values) - {"none"}
    assert set(phrases.HAIR_STYLES) == set().union(*HAIR_STYLES.values())
    for domain in DOMAINS:
        seen = {(name, getattr(person, name)) for person, _, _, names in captioned(domain) for name in names}
        expected = {(name, value) for name, values in CHOICES.items() for value in values if value != "none"}
        expected |= {("hair_style", style) for styles in HAIR_STYLES.values() for style in styles}
        expected |= {("sleeves", sleeves) for sleeves in ("short", "long", "none")}
        assert expected <= seen
        assert {name for name, _ in seen} == set(ATTRIBUTES)


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_view_and_the_walk_are_true(domain: Domain) -> None:
    other = {"left": "right", "right": "left"}
    for _, shot, caption, _ in captioned(domain):
        text = " ".join(words_of(caption))
        for phrase in phrases.WALK.of("street"):
            assert phrase not in text or walking(shot), caption
        if shot.view in other:
            assert not re.search(rf"\b{other[shot.view]}(wards)?\b|seen from (front|behind)|camera|rear", text), caption
        elif shot.view == "front":
            assert not re.search(r"\b(left|right|behind|away|rear|profile)\b", text), caption
        else:
            assert not re.search(r"\b(left|right|facing camera|front|towards|profile)\b", text), caption
    assert not walking(replace(shot, stride=0.0))
    assert walking(replace(shot, stride=0.25, gait=1.0))


@pytest.mark.parametrize("domain", DOMAINS)
def test_deterministic_and_varied(domain: Domain) -> None:
    same = alike = 0
    for person, shot, caption, names in captioned(domain)[:500]:
        pid = person.pid
        assert describe(person, shot, np.random.default_rng([SEED, pid])) == caption
        assert facts(person, shot, np.random.default_rng([SEED, pid])) == names
        rng = np.random.default_rng([SEED, pid, 1])
        first, second = (describe(person, shot, rng) for _ in range(2))
        same += first == second
        rng = np.random.default_rng([SEED, pid, 2])
        alike += set(facts(person, shot, rng)) == set(facts(person, shot, rng))
    assert same <= 1
    assert alike <= 40


@pytest.mark.parametrize("domain", DOMAINS)
def test_length_and_number_of_facts(domain: Domain) -> None:
    lengths = np.array([len(caption.split()) for _, _, caption, _ in captioned(domain)])
    counts = np.array([len(names) for *_, names in captioned(domain)])
    assert 18 <= lengths.mean() <= 23
    assert lengths.min() >= 4
    assert lengths.max() <= 55
    assert np.quantile(lengths, 0.02) >= 7
    assert 6 <= counts.mean() <= 9
    assert counts.min() >= FEWEST - 2  # a picture may show less
    assert counts.max() <= MOST + 1  # "boy" says one more


@pytest.mark.parametrize("domain", DOMAINS)
def test_written_properly(domain: Domain) -> None:
    for _, _, caption, _ in captioned(domain):
        assert re.fullmatch(r"[A-Za-z,.: -]+\.", caption), caption
        assert not re.search(r"  | [,.:]|[,.:][,.:]|,[^ ]|- | -", caption), caption
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption.lower()), caption
        assert not re.search(r"\b(\w+) \1\b", caption.lower()), caption
        assert not re.search(r"\b(?:a|an) (?:\w+ )?(?:trousers|jeans|shorts|sneakers|boots)\b", caption), caption
        starts = [s[0] for s in re.split(r"(?<=\.) ", caption)]
        assert all(s.isupper() for s in starts) or caption == caption.lower(), caption
        assert not re.search(r"[^.] [A-HJ-Z]", caption), caption


def test_plural_garments_have_plural_nouns() -> None:
    table = {value: words for values in phrases.GARMENTS.values() for value, words in values.items()}
    for value in table.keys() - {"dress"}:
        for noun in table[value].of("street"):
            assert noun.endswith("s") == (value in (*phrases.PLURAL, "glasses", "sunglasses")), noun


def test_vocabulary() -> None:
    heard = {
        domain: {w for _, _, c, _ in captioned(domain) for w in re.findall("[a-z]+", c.lower())} for domain in DOMAINS
    }
    assert len(heard["studio"] | heard["street"]) >= 300
    for domain in DOMAINS:
        assert heard[domain] <= vocabulary(domain)
        assert len(vocabulary(domain) - heard[domain]) <= 0.03 * len(vocabulary(domain))


def test_studio_never_says_street_words() -> None:
    only = vocabulary("street") - vocabulary("studio")
    assert len(only) >= 150
    for _, _, caption, _ in captioned("studio"):
        assert not only & set(re.findall("[a-z]+", caption.lower())), caption


def test_shelves_are_used_as_often_as_the_table_says() -> None:
    for shares in phrases.SHELVES.values():
        assert sum(shares) == pytest.approx(1)
    tints = phrases.COLOURS["red"]
    for domain in DOMAINS:
        counts: Counter[str] = Counter()
        for person, _, caption, names in captioned(domain):
            if "upper_colour" in names and person.upper_colour == "red":
                said = set(re.findall("[a-z]+", caption.lower()))
                others = [n for n in names if n != "upper_colour" and getattr(person, n) == "red"]
                if not others:
                    shelves = {"plain": tints.plain, "shared": tints.shared, "street": tints.street}
                    counts.update(shelf for shelf, words in shelves.items() if said & set(words))
        total = sum(counts.values())
        for shelf, share in zip(("plain", "shared", "street"), phrases.SHELVES[domain], strict=True):
            assert counts[shelf] / total == pytest.approx(share, abs=0.1)


def test_street_says_words_that_studio_never_says() -> None:
    known = vocabulary("studio")
    words = [w for _, _, caption, _ in captioned("street") for w in re.findall("[a-z]+", caption.lower())]
    assert 0.08 <= sum(w not in known for w in words) / len(words) <= 0.25


def test_fast() -> None:
    people = [(sample_person(SEED, pid), sample_shot(SEED, pid, 0, "street")) for pid in range(300)]
    rng = np.random.default_rng(SEED)
    start = time.process_time()
    for person, shot in people:
        describe(person, shot, rng)
    assert (time.process_time() - start) / len(people) < 0.001  # usually 0.06 ms
