"""Whom to trust: truthful users agree with the ranking they marked, those who turn verdicts around do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.backbones import Backbone
from core.model import UPPerson
from tests.coloured import Mark
from train import pedestrians
from train.embed import embed_captions, embed_pixels
from train.finetuning.adaptation import Adaptation, train
from train.finetuning.start import held_back
from train.finetuning.trust import LEAST_MARKS, agreement, check_agreement, trusted
from train.pedestrians import SyntheticSet

TOP = 10
OPPOSITE = {"hit": "miss", "miss": "hit"}


def brute(marks: Sequence[Mark]) -> float:
    pairs = [
        1.0 if hit.score > miss.score else 0.5 if hit.score == miss.score else 0.0
        for hit in marks
        for miss in marks
        if (hit.verdict, miss.verdict) == ("hit", "miss") and hit.version == miss.version
    ]
    return float(np.mean(pairs)) if pairs else float("nan")


def drawn(seed: int, count: int = 40, *, skill: float = 0.0) -> list[Mark]:
    """Marks with scores of two versions, hits higher by `skill` noises."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        hit = rng.random() < 0.4
        score = round(float(rng.normal(skill * hit, 1.0)), 1)
        verdict = "hit" if hit else "miss"
        version = str(rng.choice(["v0", "v1"]))
        found.append(Mark(f"caption {number // 4}", f"{number}", verdict, 1, score, version))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_agreement_equals_brute_force(seed: int) -> None:
    marks = drawn(seed, 3 + seed)
    assert agreement(marks) == pytest.approx(brute(marks), nan_ok=True)
    assert agreement([*marks, Mark("x", "y", "wrong_person", 1, 9.0)]) == pytest.approx(brute(marks), nan_ok=True)


def test_there_is_no_agreement_without_a_pair() -> None:
    assert np.isnan(agreement([]))
    assert np.isnan(agreement([Mark("a", "b", "hit")]))
    assert np.isnan(agreement([Mark("a", "b", "hit", version="v0"), Mark("a", "c", "miss", version="v1")]))


def test_too_few_marks_are_not_judged() -> None:
    marks = [replace(m, verdict=OPPOSITE[m.verdict]) for m in drawn(0, LEAST_MARKS, skill=3.0)]
    assert check_agreement(marks[:-1]) is None
    verdict = check_agreement(marks)
    assert verdict is not None
    assert verdict.decision == "suspicious"


def test_one_verdict_alone_is_not_judged() -> None:
    marks = [replace(m, verdict="hit") for m in drawn(0)]
    assert check_agreement(marks) is None


def test_what_looks_inverted_waits_for_an_administrator() -> None:
    verdict = check_agreement([replace(m, verdict=OPPOSITE[m.verdict]) for m in drawn(0, 80, skill=3.0)])
    assert verdict is not None
    assert "inverted or hostile" in verdict.reason
    assert "an administrator should look" in verdict.reason
    assert verdict.numbers["marks"] == 80
    assert verdict.numbers["agreement"] <= verdict.numbers["agreement_high"] < 0.5


def test_what_agrees_no_more_than_chance_teaches_nothing() -> None:
    marks = [m for seed in range(3) for m in drawn(seed, 40)]
    if agreement(marks) > 0.5:
        marks = [replace(m, verdict=OPPOSITE[m.verdict]) for m in marks]
    verdict = check_agreement(marks)
    assert verdict is not None
    assert verdict.decision == "undecided"
    assert "no more than chance" in verdict.reason


def test_one_hostile_user_is_left_out_and_the_others_stay() -> None:
    honest = [replace(m, user=name) for n, name in enumerate(("ada", "bob")) for m in drawn(n, 80, skill=2.0)]
    hostile = [replace(m, user="eve", verdict=OPPOSITE[m.verdict]) for m in drawn(7, 80, skill=2.0)]
    kept, said = trusted([*honest, *hostile])
    assert kept == honest
    assert said.startswith("Left out: 80 marks of one user")
    more = [replace(m, user="mallory") for m in hostile]
    kept, said = trusted([*hostile, *honest, *more])
    assert kept == honest
    assert said.startswith("Left out: 160 marks of 2 users")
    assert trusted(honest) == (honest, "")


def test_marks_of_nobody_in_particular_are_one_users() -> None:
    marks = [replace(m, verdict=OPPOSITE[m.verdict]) for m in drawn(1, 80, skill=2.0)]
    assert trusted(marks)[0] == []


# On drawn people


@pytest.fixture(scope="module")
def gallery(mini: Backbone, cache: Path) -> SyntheticSet:
    return pedestrians.load(pedestrians.takes("street", "users", 150, 4), mini.image_size, cache=cache)


@pytest.fixture(scope="module", params=["plain", pytest.param("adapted", marks=pytest.mark.long)])
def said(request: pytest.FixtureRequest, mini: Backbone, gallery: SyntheticSet, cache: Path) -> list[list[Mark]]:
    """What a truthful user says of the first results of each picture's caption under a version of `mini`."""
    model = UPPerson(mini)
    if request.param == "adapted":
        pairs = pedestrians.load(pedestrians.takes("studio", "replay", 2000, 1), mini.image_size, cache=cache)
        known, watched = held_back(pairs)
        assert known is not None
        assert watched is not None
        model = train(Adaptation(model, known, watched, watched, gallery.pixels))
    captions = [take.caption(annotator=1) for take in gallery.takes]
    scores = embed_captions(model, captions) @ embed_pixels(model, gallery.pixels).T
    found = []
    for row, caption in enumerate(captions):
        best = np.argsort(-scores[row], kind="stable")[:TOP]
        fits = gallery.pids[best] == gallery.pids[row]
        found.append(
            [
                Mark(caption, f"{image}", "hit" if fit else "miss", rank, float(scores[row, image]))
                for rank, (image, fit) in enumerate(zip(best, fits, strict=True), start=1)
            ]
        )
    return found


def test_truthful_subsets_are_trusted_and_inverted_ones_refused(said: list[list[Mark]]) -> None:
    """20 random subsets of 300 marks, 30 captions each."""
    passed, refused = 0, 0
    for seed in range(20):
        chosen = np.random.default_rng(seed).choice(len(said), 30, replace=False)
        marks = [mark for at in chosen for mark in said[at]]
        passed += check_agreement(marks) is None
        refused += check_agreement([replace(mark, verdict=OPPOSITE[mark.verdict]) for mark in marks]) is not None
    assert (passed, refused) == (20, 20)


def test_a_fifth_of_the_verdicts_flipped_is_still_honest(said: list[list[Mark]]) -> None:
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(said), 100, replace=False)
    marks = [
        replace(mark, verdict=OPPOSITE[mark.verdict]) if rng.random() < 0.2 else mark
        for at in chosen
        for mark in said[at]
    ]
    assert check_agreement(marks) is None
