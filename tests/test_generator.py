"""The synthetic data: deterministic anywhere, five disjoint populations, hard enough to mean something."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from train.pedestrians import generator
from train.pedestrians.generator import Take, load, parallel, takes
from train.pedestrians.people import CHOICES, SEEDS, Person, Use, visible

HARDEST_PAIR = 0.10
"""What R@1 any two attributes alone may reach (fixed before anything was tuned)."""


def test_the_uses_are_disjoint_populations() -> None:
    assert set(SEEDS) == set(get_args(Use))
    assert len(set(SEEDS.values())) == len(SEEDS) == 7
    people = [take.person() for use in get_args(Use) for take in takes("studio", use, 300, 1)]
    bodies = {(p.shade, p.body, p.stripe) for p in people}  # continuous: the same only for the same person
    assert len(bodies) == 2100


def test_takes_of_a_person_adjoin_and_counting_starts_where_given() -> None:
    assert takes("street", "users", 2, 2, first=5) == [Take("street", "users", p, n) for p in (5, 6) for n in (0, 1)]


def test_both_domains_show_the_same_people() -> None:
    assert Take("studio", "test", 4, 0).person() == Take("street", "test", 4, 0).person()
    assert Take("studio", "test", 4, 0).shot() != Take("street", "test", 4, 0).shot()


@pytest.mark.parametrize("domain", ["studio", "street"])
def test_a_picture_and_its_captions_are_the_same_every_time(domain: str) -> None:
    take, again = (Take(domain, "test", 17, 1) for _ in range(2))  # type: ignore[arg-type]
    picture = take.picture()
    assert (picture.size, picture.mode) == ((128, 384), "RGB")
    assert picture.tobytes() == again.picture().tobytes()
    assert [take.caption(a) for a in range(4)] == [again.caption(a) for a in range(4)]
    assert len({take.caption(annotator) for annotator in range(6)}) >= 5
    assert picture.tobytes() != Take(domain, "test", 17, 0).picture().tobytes()  # type: ignore[arg-type]


def test_captions_say_what_the_picture_shows() -> None:
    for take in takes("street", "test", 30, 2):
        assert take.said(2) <= visible(take.person(), take.shot())


def test_a_set_is_the_same_at_any_number_of_workers() -> None:
    which = takes("studio", "replay", 180, 2) + takes("street", "replay", 20, 2)  # 400: the fewest that are shared out
    size = (48, 16)
    shared = load(which, size, workers=2)
    assert shared.pixels.shape == (400, 48, 16, 3)
    assert shared.pixels.dtype == np.uint8
    some = [0, 1, 199, 200, 201, 360, 398, 399]
    alone = load([which[index] for index in some], size, workers=1)
    assert np.array_equal(shared.pixels[some], alone.pixels)
    assert [shared.captions[index] for index in some] == list(alone.captions)
    assert shared.takes == tuple(which)
    assert shared.pids.tolist() == [take.pid for take in which]


def test_work_comes_back_in_order() -> None:
    assert list(parallel(abs, list(range(-450, 0)), workers=2)) == list(range(450, 0, -1))
    assert list(parallel(abs, [], workers=2)) == []


def test_no_two_attributes_alone_find_a_person() -> None:
    """500 unseen identities x 2. For each picture, two attributes are known as far as it shows them; every picture that
    shows the same ties for the first place. R@1 expected, over all pictures, for the best pair of attributes."""
    which = takes("studio", "test", 500, 2)
    people = [take.person() for take in which]
    seen = [visible(take.person(), take.shot()) for take in which]
    same_person = np.array([take.pid for take in which])[:, None] == np.array([take.pid for take in which])[None]
    fits = {}
    for name in sorted(set(CHOICES) | {"hair_style", "sleeves"}):
        values = sorted({getattr(person, name) for person in people})
        shown = np.array(
            [values.index(getattr(p, name)) if name in s else -1 for p, s in zip(people, seen, strict=True)]
        )
        fits[name] = (shown[:, None] == shown[None]) | (shown == -1)[:, None]
    found = {}
    for one, other in combinations(fits, 2):
        ties = fits[one] & fits[other]
        found[one, other] = float(((ties & same_person).sum(axis=1) / ties.sum(axis=1)).mean())
    best = max(found, key=lambda pair: found[pair])
    assert len(found) == 253
    assert found[best] <= HARDEST_PAIR, (best, found[best])


def test_looks_differ_more_between_people_than_words_can_say() -> None:
    """No two of 500 test people are alike in everything that can be said."""
    names = sorted(set(CHOICES) | {"hair_style", "sleeves"})

    def looks(person: Person) -> tuple[str, ...]:
        return tuple(getattr(person, name) for name in names)

    assert len({looks(take.person()) for take in takes("studio", "test", 500, 1)}) == 500


def test_the_version_is_named() -> None:
    assert generator.VERSION


def test_pixels_are_kept_and_a_damaged_file_is_drawn_again(tmp_path: Path) -> None:
    which, size = takes("studio", "replay", 3, 1), (48, 16)
    drawn = load(which, size, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    np.save(file, np.zeros_like(drawn.pixels))
    assert not load(which, size, cache=tmp_path).pixels.any()  # what is kept is not drawn
    for damage in (b"", b"\x93NUMPY", file.read_bytes()[:-1]):
        file.write_bytes(damage)
        assert np.array_equal(load(which, size, cache=tmp_path).pixels, drawn.pixels)
        assert np.array_equal(np.load(file), drawn.pixels)
    for other in (takes("street", "replay", 3, 1), takes("studio", "base", 3, 1), takes("studio", "replay", 2, 1)):
        load(other, size, cache=tmp_path)
    load(which, (96, 32), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_cache_that_cannot_be_written_only_means_drawing_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    which = takes("studio", "replay", 2, 1)
    found = load(which, (48, 16), cache=tmp_path / "file")
    assert np.array_equal(found.pixels, load(which, (48, 16)).pixels)
