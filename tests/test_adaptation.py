"""Adaptation: the style of a gallery is learnt without any label, and three unlabelled measures decide."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from core.model import UPPerson
from core.petl import PetlConfig
from tests.coloured import known_before, people
from tests.learn_config import learning
from tests.small_clip import small_backbone, stir
from train.captioned_images import CaptionedPictures
from train.embed import embed_captions, embed_pixels
from train.finetuning.adaptation import (
    CONSISTENCY_FALL,
    LEAST_PICTURES,
    Adaptation,
    AdaptConfig,
    Unlabelled,
    adapt,
    judge_adaptation,
    measure,
    replayed,
    teacher_rows,
)
from train.finetuning.config import Optimisation
from train.finetuning.gate import GateConfig
from train.finetuning.loop import Cancelled, learn
from train.finetuning.pairs import build

PETL = PetlConfig(prefix_length=2, lora_rank=4, adapter_reduction=4)
HERE = people()
SHORT = AdaptConfig(
    batch=32, distil=1.0, hidden_words=0.0, occluded=0.0, optimisation=Optimisation(lr=5e-3, max_steps=120, mix=1.0)
)
GATE = GateConfig(resamples=500, base_fall=0.5, level=0.51)


def shots(number: int) -> CaptionedPictures:
    """One picture of each of the sixteen people, with its caption."""
    pixels = np.stack([HERE.pixels[f"{person}-{number}"] for person in range(16)])
    return CaptionedPictures(pixels=pixels, captions=HERE.captions, pids=np.arange(16))


def dark_gallery(count: int = 60) -> NDArray[np.uint8]:
    """A gallery of dark pictures of the same people, with noise."""
    rng = np.random.default_rng(5)
    pixels = np.stack(list(HERE.pixels.values()))[rng.integers(0, 32, count)] * 0.25
    return np.asarray(np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def served() -> UPPerson:
    """A small model that knows the sixteen people by daylight."""
    model = UPPerson(small_backbone(), PETL)
    plain = {"hidden_words": 0.0, "occluded": 0.0, "person": 0.0, "drift": 0.0}
    taught = learning(600, lr=3e-3, mix=0.6, queries=16, hits=1, **plain)
    learn(model, build(HERE.marks()), HERE.pixels, None, taught)
    return model


@pytest.fixture(scope="module")
def given(served: UPPerson) -> Adaptation:
    return Adaptation(served, shots(0), shots(1), shots(1), dark_gallery(), SHORT, GATE)


def test_a_model_adapts_to_a_dark_gallery_and_what_serves_stays(given: Adaptation) -> None:
    before = {name: value.clone() for name, value in given.served.petl_parameters().items()}
    backbone = {name: value.clone() for name, value in given.served.backbone.clip.state_dict().items()}
    reported: list[tuple[str, float]] = []
    model, verdict = adapt(given, progress=lambda stage, share: reported.append((stage, share)))
    assert all(torch.equal(value, before[name]) for name, value in given.served.petl_parameters().items())
    assert all(torch.equal(v, backbone[name]) for name, v in given.served.backbone.clip.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in model.petl_parameters().items())
    numbers = verdict.numbers
    assert numbers["styled_after"] > numbers["styled_before"]
    assert numbers["styled_change"]["low"] > 0
    assert numbers["styled_change"]["n"] == 16
    assert verdict.decision == "promoted", verdict.reason
    assert verdict.reason.startswith("adapted to the gallery's style without any mark")
    json.dumps(numbers, allow_nan=False)
    assert {stage for stage, _ in reported} == {"measuring", "learning the gallery's style", "judging"}
    shares = [share for _, share in reported]
    assert shares == sorted(shares)
    assert 0.0 <= shares[0] <= shares[-1] <= 1.0


def test_the_same_seed_adapts_the_same(given: Adaptation) -> None:
    quick = replace(given, config=replace(SHORT, optimisation=Optimisation(max_steps=3)))
    other = replace(quick, config=replace(quick.config, optimisation=Optimisation(max_steps=3, seed=1)))
    one, again, third = (adapt(each)[0].petl_parameters() for each in (quick, quick, other))
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not all(torch.equal(value, third[name]) for name, value in one.items())


def test_the_teacher_keeps_known_pairs_near_where_they_were(given: Adaptation) -> None:
    moved = {}
    for distil in (0.0, 300.0):
        config = replace(SHORT, styled=0.0, distil=distil, optimisation=Optimisation(max_steps=15))
        model, _ = adapt(replace(given, config=config))
        pairs = zip(teacher_rows(model, given.known), teacher_rows(given.served, given.known), strict=True)
        moved[distil] = [float(((now - before) ** 2).sum(axis=1).mean()) for now, before in pairs]
    assert all(near < far / 2 for near, far in zip(moved[300.0], moved[0.0], strict=True))


@pytest.mark.parametrize("count", [0, LEAST_PICTURES - 1])
def test_a_small_gallery_has_no_style_to_learn(given: Adaptation, count: int) -> None:
    with pytest.raises(ValueError, match=f"the gallery has {count} pictures: adaptation needs {LEAST_PICTURES}"):
        adapt(replace(given, gallery=given.gallery[:count]))


def test_a_plain_backbone_gets_fresh_weights_to_adapt(given: Adaptation) -> None:
    quick = replace(SHORT, optimisation=Optimisation(max_steps=1))
    model, _ = adapt(replace(given, served=UPPerson(given.served.backbone), config=quick))
    assert model.config == PetlConfig()


def test_a_cancelled_adaptation_leaves_what_serves_alone(given: Adaptation) -> None:
    before = {name: value.clone() for name, value in given.served.petl_parameters().items()}

    def stop(stage: str, share: float) -> None:
        if stage.startswith("learning") and share > 0.1:
            raise Cancelled

    with pytest.raises(Cancelled):
        adapt(given, progress=stop)
    assert all(torch.equal(value, before[name]) for name, value in given.served.petl_parameters().items())


# What is measured


def test_measures_are_those_of_their_definition(given: Adaptation) -> None:
    found = measure(given, given.served)
    np.testing.assert_array_equal(found.styled_before, found.styled_after)
    assert found.consistency_before == found.consistency_after
    assert found.base_before == found.base_after
    assert found.pids.tolist() == list(range(16))
    assert ((found.styled_before >= 0) & (found.styled_before <= 1)).all()
    scores = embed_captions(given.served, given.base.captions) @ embed_pixels(given.served, given.base.pixels).T
    assert found.base_before == pytest.approx(float((scores.argmax(axis=1) == np.arange(16)).mean()))
    other = stir(UPPerson(given.served.backbone, PETL))
    changed = measure(given, other)
    np.testing.assert_array_equal(changed.styled_before, found.styled_before)
    assert not np.array_equal(changed.styled_after, found.styled_after)


def test_one_person_in_two_pictures_is_no_confusion(given: Adaptation) -> None:
    alike = replace(given, watched=replace(given.watched, pids=np.zeros(16, np.int64)))
    np.testing.assert_allclose(measure(alike, given.served).styled_after, 1.0, rtol=1e-5)


# The verdict


def unlabelled(change: float = 0.1, **more: float) -> Unlabelled:
    before = np.random.default_rng(0).uniform(0.3, 0.5, 40)
    gain = np.random.default_rng(1).normal(change, 0.05, 40)
    facts = {"consistency_before": 0.9, "consistency_after": 0.9, "base_before": 0.8, "base_after": 0.8} | more
    return Unlabelled(before, before + gain, np.arange(40), **facts)


def test_what_learns_the_style_and_loses_nothing_is_promoted() -> None:
    verdict = judge_adaptation(unlabelled(), GateConfig())
    assert verdict.decision == "promoted"
    numbers = verdict.numbers
    assert numbers["styled_after"] - numbers["styled_before"] == pytest.approx(numbers["styled_change"]["mean"])
    assert "R@1 on the base set went from 80.0% to 80.0%" in verdict.reason


@pytest.mark.parametrize("change", [0.0, -0.1])
def test_a_style_that_is_not_learnt_beyond_doubt_is_rejected(change: float) -> None:
    verdict = judge_adaptation(unlabelled(change), GateConfig())
    assert verdict.decision == "rejected"
    assert verdict.reason.startswith("the gallery's style is not learnt beyond doubt")


def test_one_watched_person_proves_nothing() -> None:
    alone = replace(unlabelled(), pids=np.zeros(40, np.int64))
    assert judge_adaptation(alone, GateConfig()).decision == "rejected"


def test_an_adapted_version_that_forgets_is_rejected() -> None:
    assert judge_adaptation(unlabelled(base_after=0.79), GateConfig()).decision == "promoted"
    verdict = judge_adaptation(unlabelled(base_after=0.7899), GateConfig())
    assert verdict.decision == "rejected"
    assert verdict.reason.startswith("it forgets: ")
    assert "at most 1.0% may be lost there" in verdict.reason


def test_an_adapted_version_that_confuses_pictures_is_rejected() -> None:
    least = 0.9 - CONSISTENCY_FALL
    assert judge_adaptation(unlabelled(consistency_after=least), GateConfig()).decision == "promoted"
    verdict = judge_adaptation(unlabelled(consistency_after=least - 0.001), GateConfig())
    assert verdict.decision == "rejected"
    assert verdict.reason.startswith("it confuses pictures of the gallery")


# What a round replays


def test_known_pairs_are_replayed_with_the_rows_of_what_serves(served: UPPerson) -> None:
    known = known_before(8)
    found = replayed(served, known)
    assert found.pairs is known
    np.testing.assert_array_equal(found.captions, embed_captions(served, known.captions))
    np.testing.assert_array_equal(found.pictures, embed_pixels(served, known.pixels))
