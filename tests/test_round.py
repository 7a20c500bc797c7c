"""A round of fine-tuning: refusals in words, folds that hold out, a candidate beside a served model left alone."""

from __future__ import annotations

from dataclasses import replace
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
from tests.learn_config import altered, learning
from tests.small_clip import small_backbone, stir
from train.embed import embed_captions, embed_pixels
from train.finetuning.gate import GateConfig
from train.finetuning.loop import MIXES, Cancelled, Learnt, learn
from train.finetuning.pairs import build
from train.finetuning.round import Round, _ranking, _watching, _Work, check, fine_tune
from train.finetuning.sampler import Replay
from train.finetuning.start import confusion, r1, start_model

PETL = PetlConfig(prefix_length=2, lora_rank=4, adapter_reduction=4)
HERE = people()
QUICK = learning(2, lr=3e-3, queries=8, replay=4)
GATE = GateConfig(resamples=500, base_least=0.0)  # the base set is noise


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone()


def given(backbone: Backbone, marks: list[Mark] | None = None, **more: object) -> Round:
    served = stir(UPPerson(backbone, PETL), seed=4)
    facts = {"rest": sorted(HERE.pixels), "origin": UPPerson(backbone), "learning": QUICK, "gate": GATE} | more
    return Round(served, HERE.marks() if marks is None else marks, HERE.pixels, **facts)  # type: ignore[arg-type]


def state(model: UPPerson) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.petl_parameters().items()}


def test_a_round_trains_and_judges_and_leaves_what_is_served_alone(backbone: Backbone) -> None:
    frozen = {name: value.clone() for name, value in backbone.clip.state_dict().items()}
    here = given(backbone, known=known_before(8), base=known_before(40))
    served = state(here.served)
    reported: list[tuple[str, float]] = []
    outcome = fine_tune(here, progress=lambda stage, share: reported.append((stage, share)))

    assert all(torch.equal(value, frozen[name]) for name, value in backbone.clip.state_dict().items())
    assert all(torch.equal(value, served[name]) for name, value in here.served.petl_parameters().items())
    assert outcome.model is not None
    assert outcome.model.config == PETL
    assert any(not torch.equal(v, served[n]) for n, v in outcome.model.petl_parameters().items())
    assert outcome.verdict.decision in ("promoted", "rejected")
    assert outcome.verdict.numbers["base_before"] is not None
    assert set(outcome.metrics) == {"hits", "misses", "conflicts", "held_out_precision", "base_r1"}
    assert (outcome.metrics["hits"], outcome.metrics["misses"]) == (32, 160)

    stages = list(dict.fromkeys(stage for stage, _ in reported))
    training = ["training fold 1 of 2", "training the control", "training fold 2 of 2", "training on all marks"]
    assert stages == ["checking", *training, "judging"]
    shares = [share for _, share in reported]
    assert shares == sorted(shares)
    assert (shares[0], max(shares) <= 1.0) == (0.0, True)
    assert set(outcome.seconds) == {*training, "judging"}
    assert outcome.mix in (QUICK.optimisation.mix, *MIXES)


def test_in_text_mode_the_candidate_encodes_pictures_as_what_serves(backbone: Backbone) -> None:
    pixels = np.stack(list(HERE.pixels.values()))
    served = stir(UPPerson(backbone, PETL), seed=4)
    plain = UPPerson(backbone)
    base = known_before(40)
    for former in (served, plain, stir(UPPerson(backbone, replace(PETL, towers=("text",))))):
        learning = altered(QUICK, replay=4)
        here = given(backbone, known=known_before(8), base=base, mode="text", learning=learning)
        outcome = fine_tune(replace(here, served=former))
        assert outcome.model is not None
        np.testing.assert_array_equal(embed_pixels(outcome.model, pixels), embed_pixels(former, pixels))
        moved = embed_captions(outcome.model, HERE.captions) - embed_captions(former, HERE.captions)
        assert float(np.abs(moved).max()) > 1e-4
        assert outcome.model.config is not None
        assert outcome.model.config.towers == (("image", "text") if former is served else ("text",))
        assert outcome.verdict.numbers["base_after"] == r1(outcome.model, base)
        assert outcome.verdict.numbers["base_origin"] == r1(plain, base)


def test_a_full_round_after_text_rounds_goes_on_from_their_weights(backbone: Backbone) -> None:
    former = stir(UPPerson(backbone, replace(PETL, towers=("text",))))
    started = start_model(former)
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


def test_a_later_round_is_judged_by_people_not_learnt_from(backbone: Backbone) -> None:
    learnt = {caption_key(caption) for caption in HERE.captions[:8]}
    gate = replace(GATE, captions=8)
    here = given(backbone, learnt=learnt, base=known_before(40), gate=gate)
    outcome = fine_tune(here)
    numbers = outcome.verdict.numbers
    assert numbers["order_change"]["n"] == 8
    assert outcome.metrics["hits"] == 32  # and the candidate learns from all
    assert here.base is not None
    assert numbers["base_origin"] == r1(UPPerson(backbone), here.base)
    assert numbers["base_before"] == r1(here.served, here.base)

    too_few = fine_tune(given(backbone, learnt=learnt))
    assert too_few.model is None
    assert too_few.verdict.decision == "undecided"
    assert too_few.verdict.reason.startswith("too little to judge by: 8 new captions of 8 people")


def test_what_generalises_to_people_held_out_is_promoted(backbone: Backbone) -> None:
    """Colours of coats and trousers are shared by people, so a fold learns them for those it never saw."""
    learning = altered(QUICK, min_steps=80, max_steps=80, replay=0, mix=1.0, occluded=0.0, hidden_words=0.0)
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


# What is held fast


def spy(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The arguments of each run of the learning loop."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def noted(*args: Any, **options: Any) -> Learnt:
        calls.append((args, options))
        return learn(*args, **options)

    monkeypatch.setattr("train.finetuning.round.learn", noted)
    return calls


def test_what_serves_is_the_teacher_of_folds_control_and_candidate(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = spy(monkeypatch)
    known = known_before(8)
    here = given(backbone, known=known)
    fine_tune(here)
    assert len(calls) == 5
    for args, _ in calls:
        assert isinstance(args[3], Replay)
        np.testing.assert_array_equal(args[3].captions, embed_captions(here.served, known.captions))
        np.testing.assert_array_equal(args[3].pictures, embed_pixels(here.served, known.pixels))


def test_nothing_is_replayed_where_nothing_is_wanted(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spy(monkeypatch)
    fine_tune(given(backbone, known=known_before(8), learning=altered(QUICK, replay=0)))
    assert [args[3] for args, _ in calls] == [None] * 5


def test_forgetting_is_measured_from_what_serves(backbone: Backbone) -> None:
    known, here = known_before(8), given(backbone)
    other = stir(UPPerson(backbone, PETL), seed=5)
    watching = _watching(_Work(here, build(here.marks), lambda _stage, _share: None, lambda _text: None), known)
    assert watching(other) == pytest.approx(confusion(other, known) - confusion(here.served, known))
    assert watching(here.served) == 0


def test_forgetting_is_watched_where_pairs_enough_are_known(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = spy(monkeypatch)
    known = known_before(140)
    for forgotten, mix in ((0.02, 0.8), (0.021, MIXES[-1])):
        monkeypatch.setattr("train.finetuning.round._watching", lambda *_, much=forgotten: lambda _model: much)
        outcome = fine_tune(given(backbone, learning=altered(QUICK, mix=0.8, forget=0.02), known=known))
        assert outcome.mix == mix
        assert all(options["forgotten"] is not None for _, options in calls)
        assert all(len(args[3].pairs.pids) == 119 for args, _ in calls), "what is watched is not replayed"
    calls.clear()
    few = fine_tune(given(backbone, learning=altered(QUICK, mix=0.8), known=known_before(60)))
    assert few.mix == 0.8, "too few to show what is forgotten"
    assert all(options["forgotten"] is None for _, options in calls)


def test_without_an_origin_the_served_version_is_what_must_not_be_lost(backbone: Backbone) -> None:
    here = given(backbone, base=known_before(40), origin=None)
    numbers = fine_tune(here).verdict.numbers
    assert here.base is not None
    assert numbers["base_origin"] == numbers["base_before"] == r1(here.served, here.base)


# The control


def test_controls_learn_shuffled_marks_of_the_folds_by_the_same_settings(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = spy(monkeypatch)
    here = given(backbone, known=known_before(8))
    stages: list[str] = []
    fine_tune(here, progress=lambda stage, _share: stages.append(stage))
    order = [stage for stage in dict.fromkeys(stages) if stage.startswith("training")]
    assert order == ["training fold 1 of 2", "training the control", "training fold 2 of 2", "training on all marks"]
    assert len(calls) == 5
    for (fold, _), (control, _) in zip(calls[:4:2], calls[1:4:2], strict=True):
        assert (fold[1].captions, fold[1].image_ids) == (control[1].captions, control[1].image_ids)
        np.testing.assert_array_equal((fold[1].judged > 0).sum(axis=1), (control[1].judged > 0).sum(axis=1))
        assert not np.array_equal(fold[1].judged, control[1].judged)
        assert fold[4] == control[4], "the same settings, so as many steps"
    np.testing.assert_array_equal(calls[4][0][1].judged, build(HERE.marks()).judged)


def test_the_controls_judge_the_captions_of_both_folds(backbone: Backbone) -> None:
    numbers = fine_tune(given(backbone)).verdict.numbers
    assert numbers["order_change"]["n"] == numbers["order_over_control"]["n"] == 16


def test_where_shuffled_marks_reach_as_much_nothing_is_promoted(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.finetuning.round.shuffled", lambda pairs, _rng: pairs)  # a control that learns it all
    settings = altered(QUICK, min_steps=80, max_steps=80, replay=0, mix=1.0, occluded=0.0, hidden_words=0.0)
    here = given(backbone, learning=settings, base=known_before(40), gate=replace(GATE, base_fall=0.5))
    outcome = fine_tune(replace(here, served=UPPerson(backbone)))
    assert outcome.verdict.numbers["order_change"]["low"] > 0
    assert outcome.verdict.decision == "rejected"
    assert outcome.verdict.reason.startswith("not because of the marks")


# Whom to trust


def hostile(*, seed: int = 3) -> list[Mark]:
    """As many marks as everybody's of a user who turns each verdict around."""
    opposite = {"hit": "miss", "miss": "hit"}
    return [replace(mark, verdict=opposite[mark.verdict], user="eve") for mark in HERE.marks(seed=seed)]


def test_a_hostile_user_among_honest_ones_is_left_out(backbone: Backbone) -> None:
    honest = [replace(mark, user=user) for user in ("ada", "bob") for mark in HERE.marks()]
    outcome = fine_tune(given(backbone, [*honest, *hostile()]))
    assert outcome.model is not None
    assert outcome.metrics["hits"] == 32
    assert "Left out: 192 marks of one user" in outcome.verdict.reason


def test_what_is_left_out_is_said_where_too_little_remains(backbone: Backbone) -> None:
    few = [replace(mark, user="ada") for mark in HERE.marks()[:36]]
    outcome = fine_tune(given(backbone, [*few, *hostile()]))
    assert outcome.model is None
    assert outcome.verdict.decision == "undecided"
    assert "Mark hits and misses for 7 more" in outcome.verdict.reason
    assert "Left out: 192 marks of one user" in outcome.verdict.reason


def test_where_nobody_can_be_trusted_the_reason_says_why() -> None:
    pairs, left_out, refusal = check(hostile(), (), GATE)
    assert pairs.hits == 0
    assert "Left out: 192 marks" in left_out
    assert refusal is not None
    assert refusal.decision == "suspicious"


# Its parts


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
