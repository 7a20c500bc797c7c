"""A round of fine-tuning: refusals in words, folds that hold out, a candidate beside a served model left alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from core.backbones import Backbone
from core.model import UPPerson
from core.petl import PetlConfig
from store.records import caption_key
from tests.coloured import Mark, known_before, people
from tests.small_clip import small_backbone, stir
from train import pedestrians
from train.finetuning.gate import GateConfig
from train.finetuning.loop import MIXES, Cancelled, Held, LearnConfig, learn
from train.finetuning.pairs import build
from train.finetuning.round import (
    MINI_PETL,
    Round,
    _r1,
    _ranking,
    confusion,
    embed_captions,
    embed_pixels,
    fine_tune,
    held_back,
    hold,
    petl_config,
    replayed,
    start_model,
    watching,
)
from train.metrics import rank_metrics

PETL = PetlConfig(prefix_length=2, lora_rank=4, adapter_reduction=4)
HERE = people()
QUICK = LearnConfig(lr=3e-3, queries=8, replay=4, min_steps=2, max_steps=2)
GATE = GateConfig(resamples=500, base_least=0.0)  # the base set is noise


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone()


def given(backbone: Backbone, marks: list[Mark] | None = None, **more: object) -> Round:
    served = stir(UPPerson(backbone, PETL), seed=4)
    facts = {"rest": sorted(HERE.pixels), "learning": QUICK, "gate": GATE} | more
    return Round(backbone, served, HERE.marks() if marks is None else marks, HERE.pixels, **facts)  # type: ignore[arg-type]


def state(model: UPPerson) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.petl_parameters().items()}


def test_a_round_trains_and_judges_and_leaves_what_is_served_alone(backbone: Backbone) -> None:
    frozen = {name: value.clone() for name, value in backbone.clip.state_dict().items()}
    here = given(backbone, replay=known_before(8), base=known_before(40))
    served = state(here.served)
    told: list[tuple[str, float]] = []
    outcome = fine_tune(here, progress=lambda stage, share: told.append((stage, share)))

    assert all(torch.equal(value, frozen[name]) for name, value in backbone.clip.state_dict().items())
    assert all(torch.equal(value, served[name]) for name, value in here.served.petl_parameters().items())
    assert outcome.model is not None
    assert outcome.model.config == PETL
    assert any(not torch.equal(v, served[n]) for n, v in outcome.model.petl_parameters().items())
    assert outcome.verdict.decision in ("promoted", "rejected")
    assert outcome.verdict.numbers["base_before"] is not None
    assert set(outcome.metrics) == {"hits", "misses", "conflicts", "held_out_precision", "base_r1"}
    assert (outcome.metrics["hits"], outcome.metrics["misses"]) == (32, 160)

    stages = list(dict.fromkeys(stage for stage, _ in told))
    training = ["training on all marks", "training fold 1 of 2", "training fold 2 of 2"]
    assert stages == ["checking", *training, "judging"]
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (shares[0], max(shares) <= 1.0) == (0.0, True)
    assert set(outcome.seconds) == {*training, "judging"}


def test_in_text_mode_the_candidate_encodes_pictures_as_the_served_version_does(backbone: Backbone) -> None:
    pixels = np.stack(list(HERE.pixels.values()))
    served = stir(UPPerson(backbone, PETL), seed=4)
    plain = UPPerson(backbone)
    base = known_before(40)
    for former in (served, plain, stir(UPPerson(backbone, replace(PETL, towers=("text",))))):
        learning = replace(QUICK, replay=4)
        here = given(backbone, replay=known_before(8), base=base, mode="text", learning=learning)
        outcome = fine_tune(replace(here, served=former))
        assert outcome.model is not None
        np.testing.assert_array_equal(embed_pixels(outcome.model, pixels), embed_pixels(former, pixels))
        moved = embed_captions(outcome.model, HERE.captions) - embed_captions(former, HERE.captions)
        assert float(np.abs(moved).max()) > 1e-4
        assert outcome.model.config is not None
        assert outcome.model.config.towers == (("image", "text") if former is served else ("text",))
        assert outcome.verdict.numbers["base_after"] == _r1(outcome.model, base)
        assert outcome.verdict.numbers["base_start"] == _r1(plain, base)


def test_some_of_what_may_be_replayed_is_held_back_unless_it_could_tell_nothing() -> None:
    known = known_before(140)
    used, watched = held_back(known)
    assert used is not None
    assert watched is not None
    assert used.captions + watched.captions == known.captions
    assert len(watched.pids) == len(watched.pixels) == 21
    few = known_before(60)
    assert held_back(few) == (few, None)
    assert held_back(None) == (None, None)


def test_what_wears_the_look_of_the_gallery_is_to_come_where_it_is_without(backbone: Backbone) -> None:
    known, model = known_before(8), UPPerson(backbone)
    worn = replayed(known, list(HERE.pixels.values()), replace(QUICK, look=1 / 3))
    assert worn is not None
    found = hold(model, known, worn)
    for rows, wanted in (
        (found.captions, embed_captions(model, known.captions)),
        (found.pictures, embed_pixels(model, known.pixels)),
    ):
        np.testing.assert_array_equal(rows, np.concatenate([wanted, wanted[:4]]))


def test_each_round_holds_what_is_replayed_near_the_plain_backbone(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Held] = []

    def told(*args: Any, **options: Any) -> float:
        held.append(options["held"])
        return learn(*args, **options)

    monkeypatch.setattr("train.finetuning.round.learn", told)
    known = known_before(8)
    fine_tune(given(backbone, replay=known))  # what serves has learnt already
    wanted = embed_captions(UPPerson(backbone), known.captions)
    for one in held:
        np.testing.assert_array_equal(one.captions[: len(wanted)], wanted)
    assert len(held) == 3


def test_confusion_is_the_share_of_the_softmax_that_falls_on_other_people(backbone: Backbone) -> None:
    known = replace(known_before(3), pids=np.array([1, 2, 1]))
    model = UPPerson(backbone)
    scores = embed_captions(model, known.captions) @ embed_pixels(model, known.pixels).T
    weights = np.exp(scores.astype(np.float64) / 0.02)
    weights /= weights.sum(axis=1, keepdims=True)
    others = weights[0, 1] + weights[1, 0] + weights[1, 2] + weights[2, 1]  # the first and the third are one person
    assert confusion(model, known) == pytest.approx(others / 3, rel=1e-4)


def test_forgetting_is_measured_from_the_better_of_the_plain_backbone_and_what_serves(backbone: Backbone) -> None:
    known, plain = known_before(8), UPPerson(backbone)
    served, other = stir(UPPerson(backbone, PETL), seed=4), stir(UPPerson(backbone, PETL), seed=5)
    least = min(confusion(plain, known), confusion(served, known))
    assert watching(known, served)(other) == pytest.approx(confusion(other, known) - least)
    assert watching(known, plain)(plain) == 0


def test_a_round_that_forgets_keeps_less_of_what_it_learnt_and_is_judged_by_just_that(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, bool, bool]] = []

    def told(*args: Any, **options: Any) -> float:
        asked.append((args[4].mix, options["forgotten"] is not None, options["held"] is not None))
        return learn(*args, **options)

    monkeypatch.setattr("train.finetuning.round.learn", told)
    known = known_before(140)
    for forgotten, mix in ((0.02, 0.8), (0.021, MIXES[-1])):
        monkeypatch.setattr("train.finetuning.round.watching", lambda *_, much=forgotten: lambda _model: much)
        asked.clear()
        outcome = fine_tune(given(backbone, learning=replace(QUICK, mix=0.8, forget=0.02), replay=known))
        assert outcome.mix == mix
        assert asked == [(0.8, True, True), (mix, False, True), (mix, False, True)]
    few = fine_tune(given(backbone, learning=replace(QUICK, mix=0.8), replay=known_before(60)))
    assert few.mix == 0.8, "too few to tell what is forgotten"


def test_what_is_replayed_wears_the_look_of_the_gallery_as_far_as_asked() -> None:
    known, gallery = known_before(8), list(HERE.pixels.values())
    worn = replayed(known, gallery, replace(QUICK, look=0.5))
    assert worn is not None
    assert worn.captions == known.captions * 2
    assert replayed(known, gallery, replace(QUICK, look=0.0)) is known
    assert replayed(known, [], QUICK) is known
    assert replayed(None, gallery, QUICK) is None


def test_a_full_round_after_text_rounds_goes_on_from_their_weights(backbone: Backbone) -> None:
    former = stir(UPPerson(backbone, replace(PETL, towers=("text",))))
    started = start_model(backbone, former)
    assert started.config == PETL
    weights = former.petl_parameters()
    assert all(torch.equal(v, weights[n]) for n, v in started.petl_parameters().items() if n.startswith("text."))
    outcome = fine_tune(replace(given(backbone), served=former))
    assert outcome.model is not None
    assert outcome.model.config == PETL


def test_the_same_marks_give_the_same_candidate_in_any_order(backbone: Backbone) -> None:
    one = fine_tune(given(backbone))
    other = fine_tune(given(backbone, HERE.marks()[::-1]))
    assert one.model is not None
    assert other.model is not None
    again = other.model.petl_parameters()
    assert all(torch.equal(value, again[name]) for name, value in one.model.petl_parameters().items())
    assert one.verdict == other.verdict
    assert one.metrics["base_r1"] is None  # without a base set nothing is measured on one


def test_a_later_round_is_judged_only_by_people_the_served_version_never_learnt_from(backbone: Backbone) -> None:
    learnt = {caption_key(caption) for caption in HERE.captions[:8]}
    gate = replace(GATE, captions=8)
    here = given(backbone, learnt=learnt, base=known_before(40), gate=gate)
    outcome = fine_tune(here)
    numbers = outcome.verdict.numbers
    assert numbers["order_change"]["n"] == 8
    assert outcome.metrics["hits"] == 32  # and the candidate learns from all
    assert here.base is not None
    assert numbers["base_start"] == _r1(UPPerson(backbone), here.base)
    assert numbers["base_before"] == _r1(here.served, here.base)

    too_few = fine_tune(given(backbone, learnt=learnt))
    assert too_few.model is None
    assert too_few.verdict.decision == "undecided"
    assert too_few.verdict.reason.startswith("too little to judge by: 8 new captions of 8 people")


def test_what_generalises_to_people_held_out_is_promoted(backbone: Backbone) -> None:
    """Colours of coats and trousers are shared by people, so a fold learns them for those it never saw."""
    learning = replace(QUICK, min_steps=60, max_steps=60, replay=0)
    plain = given(backbone, learning=learning, base=known_before(40), gate=replace(GATE, base_fall=0.5))
    outcome = fine_tune(replace(plain, served=UPPerson(backbone)))
    assert outcome.verdict.decision == "promoted", outcome.verdict.reason
    assert outcome.verdict.numbers["order_change"]["low"] > 0
    assert outcome.metrics["held_out_precision"] == outcome.verdict.numbers["held_out_after"]


def test_hits_of_people_drawn_by_lot_are_not_promoted(backbone: Backbone) -> None:
    rng = np.random.default_rng(0)
    marks, drawn = [], rng.permutation(16).tolist()
    for caption, hit in zip(HERE.captions, drawn, strict=True):
        for person in {hit, *rng.permutation(16)[:7].tolist()}:
            verdict = "hit" if person == hit else "miss"
            marks.append(Mark(caption, f"{person}-0", verdict, score=float(rng.random())))
    outcome = fine_tune(given(backbone, marks, base=known_before(40)))
    assert outcome.verdict.decision == "rejected"
    assert outcome.verdict.reason.startswith("not better beyond doubt: on held-out marks of 16 people")


def test_inverted_marks_train_nothing(backbone: Backbone) -> None:
    marks = []
    for person, caption in enumerate(HERE.captions):
        marks += [Mark(caption, f"{person}-0", "miss", 1, 0.5), Mark(caption, f"{(person + 1) % 16}-0", "hit", 2, 0.4)]
    outcome = fine_tune(given(backbone, marks))
    assert outcome.verdict.decision == "suspicious"
    assert outcome.model is None


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ([], "no hits: fine-tuning needs pictures that fit"),
        ([m for m in HERE.marks() if m.verdict == "miss"], "no hits: fine-tuning needs pictures that fit"),
        ([m for m in HERE.marks() if m.verdict == "hit"], "too little to judge by: 0 captions of 0 people"),
        (HERE.marks()[:1], "too little to judge by: 0 captions of 0 people"),
        (HERE.marks()[:36], "Mark hits and misses for 7 more, each of another person"),
    ],
    ids=["none", "misses only", "hits only", "one mark", "three captions"],
)
def test_too_little_is_said_and_nothing_trained(backbone: Backbone, marks: list[Mark], reason: str) -> None:
    outcome = fine_tune(given(backbone, marks))
    assert outcome.verdict.decision == "undecided"
    assert reason in outcome.verdict.reason
    assert outcome.model is None


def test_hits_that_every_caption_shares_cannot_be_split(backbone: Backbone) -> None:
    """Twelve captions, each with three hits among nine pictures: few enough shared to be other people, yet none
    of them is free of the other half's pictures."""
    rng = np.random.default_rng(1)
    marks = []
    for caption in range(14):
        shown = [f"{n}-0" for n in rng.permutation(9)]
        marks += [Mark(f"caption {caption}", image, "hit", 1, 0.6) for image in shown[:3]]
        marks += [Mark(f"caption {caption}", "12-0", "miss", 4, 0.1)]
    outcome = fine_tune(given(backbone, marks, gate=replace(GATE, captions=2)))
    assert outcome.verdict.decision == "undecided"
    assert "cannot be split by person" in outcome.verdict.reason


def test_cancelled_in_the_second_fold_it_leaves_nothing(backbone: Backbone) -> None:
    here = given(backbone)
    served = state(here.served)

    def stop(stage: str, _share: float) -> None:
        if stage == "training fold 2 of 2":
            raise Cancelled

    with pytest.raises(Cancelled):
        fine_tune(here, progress=stop)
    assert all(torch.equal(value, served[name]) for name, value in here.served.petl_parameters().items())


# Its parts


def test_training_starts_from_the_served_weights(backbone: Backbone) -> None:
    served = stir(UPPerson(backbone, PETL), seed=4)
    started = start_model(backbone, served)
    assert started is not served
    assert all(torch.equal(v, served.petl_parameters()[n]) for n, v in started.petl_parameters().items())
    with torch.no_grad():
        next(iter(started.petl_parameters().values())).add_(1.0)
    assert not all(torch.equal(v, served.petl_parameters()[n]) for n, v in started.petl_parameters().items())


def test_a_plain_backbone_starts_with_fresh_weights_of_its_size(backbone: Backbone) -> None:
    assert start_model(backbone, UPPerson(backbone)).config == PetlConfig() == petl_config(backbone)
    assert petl_config(replace(backbone, name="mini")) == MINI_PETL


def test_embeddings_are_unit_rows_whatever_the_batch(backbone: Backbone) -> None:
    model = stir(UPPerson(backbone, PETL))
    pixels = np.stack(list(HERE.pixels.values()))
    for embed, inputs in ((embed_pixels, pixels), (embed_captions, HERE.captions)):
        whole = embed(model, inputs)  # type: ignore[operator]
        np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, atol=1e-5)
        np.testing.assert_allclose(embed(model, inputs, batch=3), whole, atol=1e-5)  # type: ignore[operator]


def test_what_may_be_a_true_match_is_no_miss_to_the_gate(backbone: Backbone) -> None:
    """Other pictures of the same person and disputed ones stay out of the ranking; the rest of the gallery is in."""
    marks = [Mark("red", "0-0", "hit"), Mark("in red", "0-0", "hit"), Mark("in red", "0-1", "hit")]
    marks += [Mark("red", "1-0", "hit"), Mark("red", "1-0", "miss"), Mark("red", "2-0", "wrong_person")]
    marks += [Mark("red", "3-0", "wrong_person")]
    marks += [Mark("blue", "2-0", "hit")]
    here = given(backbone, marks, rest=["0-0", "1-0", "3-0", "3-1"])
    pairs = build(marks)
    pictures = dict(zip(HERE.pixels, embed_pixels(here.served, np.stack(list(HERE.pixels.values()))), strict=True))
    found = _ranking(here.served, pictures, pairs, here.rest)[1, pairs.captions.index("red")]
    ranked = ["0-0", "3-1"]  # its hit, and the pictures of the gallery that nobody said anything about
    images = embed_pixels(here.served, np.stack([HERE.pixels[image] for image in ranked]))
    scores = (embed_captions(here.served, ["red"]) @ images.T)[0]
    assert found == pytest.approx(1 / (1 + int((scores[1:] >= scores[0]).sum())))


def test_fresh_petl_costs_at_most_one_point(mini: Backbone, cache: Path) -> None:
    """Attached before any training, on the test set that every figure is reported on."""
    data = pedestrians.load(pedestrians.takes("studio", "test", 500, 2), mini.image_size, cache=cache)
    plain = UPPerson(mini)

    def r1(model: UPPerson) -> float:
        scores = embed_captions(model, data.captions) @ embed_pixels(model, data.pixels).T
        return rank_metrics(scores, data.pids, data.pids).r1

    assert r1(start_model(mini, plain)) >= r1(plain) - 0.01
