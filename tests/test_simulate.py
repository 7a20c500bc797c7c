"""Simulated users: they mark what a real search would show them, truthfully, at random or turned round."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from core import save_petl
from core.backbones import Backbone
from core.model import UPPerson
from core.petl import PetlConfig
from tests.learn_config import learning as settings
from tests.small_clip import small_backbone, stir
from train import pedestrians
from train.embed import embed_captions, embed_pixels
from train.finetuning.adaptation import Adaptation
from train.finetuning.gate import Decision, GateConfig, Verdict
from train.studies import simulate
from train.studies.simulate import (
    HARM,
    Measured,
    SimulatedMark,
    Start,
    UserConfig,
    World,
    asked_people,
    harmed,
    mark,
    measure,
    play,
    side_by_side,
    summary,
    world,
)

SIZE = (48, 16)
USER = UserConfig(captions=12, top=6)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone()


@pytest.fixture(scope="module")
def here() -> World:
    with pytest.MonkeyPatch.context() as patch:
        for name, people in {"GALLERY": 12, "REPLAY": 4, "BASE": 6, "TEST": 6}.items():
            patch.setattr(simulate, f"{name}_PEOPLE", people)
        patch.setattr(simulate, "GALLERY_SHOTS", 2)
        return world(SIZE)


@pytest.fixture
def begin(backbone: Backbone) -> Start:
    return Start(UPPerson(backbone), UPPerson(backbone))


def fits(here: World, found: SimulatedMark) -> bool:
    """Whether the picture shows the person that the caption was written of."""
    asked = [
        pid for take, pid in zip(here.gallery.takes, here.gallery.pids, strict=True) if take.caption(1) == found.caption
    ]
    return bool(here.gallery.pids[here.ids.index(found.image_id)] in asked)


def test_every_part_of_the_world_has_people_of_its_own(here: World) -> None:
    assert {take.use for take in here.gallery.takes} == {"users"}
    assert {take.domain for take in here.gallery.takes} == {"street"}
    assert {(take.domain, take.use) for take in here.replay.takes} == {("studio", "replay")}
    assert {(take.domain, take.use) for take in here.base.takes} == {("studio", "base")}
    for domain, data in here.tests.items():
        assert {(take.domain, take.use) for take in data.takes} == {(domain, "test")}
    assert len(here.ids) == len(set(here.ids)) == 24
    assert here.gallery.pixels.shape == (24, *SIZE, 3)


def test_a_truthful_user_marks_the_first_results_by_ground_truth(backbone: Backbone, here: World) -> None:
    served = UPPerson(backbone)
    marks = mark(USER, here, served)
    assert len(marks) == 72
    assert all((found.verdict == "hit") == fits(here, found) for found in marks)
    assert [found.rank for found in marks[:6]] == [1, 2, 3, 4, 5, 6]
    images = embed_pixels(served, here.gallery.pixels)
    for start in range(0, 72, 6):
        scores = (embed_captions(served, [marks[start].caption]) @ images.T)[0]
        best = np.sort(scores)[::-1][:6]
        np.testing.assert_allclose([found.score for found in marks[start : start + 6]], best, atol=1e-6)
    assert marks == mark(USER, here, served)
    assert marks != mark(replace(USER, seed=1), here, served)


def test_an_inverting_user_marks_the_opposite_of_everything(backbone: Backbone, here: World) -> None:
    truth = mark(USER, here, UPPerson(backbone))
    for user in (replace(USER, behaviour="inverted"), replace(USER, flip=1.0)):
        found = mark(user, here, UPPerson(backbone))
        assert [m.image_id for m in found] == [m.image_id for m in truth]
        assert all(one.verdict != other.verdict for one, other in zip(found, truth, strict=True))


def test_some_marks_are_turned_round_and_some_users_do_not_look(backbone: Backbone, here: World) -> None:
    wide = UserConfig(captions=24, top=24)
    truth = mark(wide, here, UPPerson(backbone))
    flipped = mark(replace(wide, flip=0.2), here, UPPerson(backbone))
    turned = np.mean([one.verdict != other.verdict for one, other in zip(flipped, truth, strict=True)])
    assert turned == pytest.approx(0.2, abs=0.06)
    careless = mark(replace(wide, behaviour="random"), here, UPPerson(backbone))
    assert np.mean([found.verdict == "hit" for found in careless]) == pytest.approx(0.5, abs=0.08)


def test_a_played_round_reports_both_domains_and_the_verdict(
    begin: Start, here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.finetuning.trust.LEAST_MARKS", 10_000)  # this ranking is random: nobody could agree
    learning = settings(1, queries=4, replay=2)
    user = UserConfig(captions=24, top=24)
    (report,) = play(begin, here, user, learning=learning, gate=GateConfig(captions=2))
    assert report["marks"] == 576
    assert report["hits"] == 48
    assert report["decision"] in ("promoted", "rejected", "suspicious")
    assert report["generator"] == pedestrians.VERSION
    assert report["domain"] == "street"
    assert report["adaptation"] is None
    for domain in ("street", "studio"):
        for when in ("before", "after", "served"):
            assert report[f"{domain}_{when}"]["queries"] == 12
    assert report["asked_before"]["queries"] == 24, "all people of the gallery were asked for"
    assert "others_before" not in report
    assert report["harmed"].keys() == {"all", "right"}
    json.dumps(report, allow_nan=False)
    assert "truthful user 0, round 1, 576 marks (48 hits): street R@1" in summary(report)


def test_a_round_that_trains_nothing_changes_no_figure(begin: Start, here: World) -> None:
    (report,) = play(begin, here, UserConfig(captions=3, top=2))
    assert report["decision"] == "undecided"
    assert all(report[f"{domain}_before"] == report[f"{domain}_after"] for domain in ("street", "studio"))
    assert "undecided" in summary(report)


def test_rounds_ask_new_captions_and_go_on_from_what_serves(
    begin: Start, here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.finetuning.trust.LEAST_MARKS", 10_000)  # this ranking is random: nobody could agree
    served = begin.served
    user = UserConfig(captions=8, top=24)
    asked = [{found.caption for found in mark(user, here, served, number=number)} for number in range(3)]
    assert not asked[0] & asked[1]
    assert not (asked[0] | asked[1]) & asked[2]
    gate = GateConfig(captions=2, base_fall=0.9, base_least=0.0, precision_fall=0.9, level=0.51)
    learning = settings(20, lr=3e-3, queries=8, replay=2)
    reports = play(begin, here, user, rounds=3, learning=learning, gate=gate)
    assert [(r["round"], r["marks"]) for r in reports] == [(1, 192), (2, 384), (3, 576)]
    for former, later in itertools.pairwise(reports):
        assert later["street_before"] == former["street_served"]
        assert (
            former["street_served"] == former["street_after" if former["decision"] == "promoted" else "street_before"]
        )


def test_a_user_asks_for_some_people_and_the_others_are_measured_apart(begin: Start, here: World) -> None:
    user = UserConfig(captions=3, top=2)
    people = asked_people(user, here, 0)
    assert 1 <= len(people) <= 3
    assert {found.caption for found in mark(user, here, begin.served)} <= {
        take.caption(1) for take, pid in zip(here.gallery.takes, here.gallery.pids, strict=True) if pid in people
    }
    found = measure(begin.served, here, people)
    theirs = np.isin(here.gallery.pids, sorted(people))
    assert found["asked"].metrics["queries"] == theirs.sum()
    assert found["others"].metrics["queries"] == (~theirs).sum()
    assert set(measure(begin.served, here)) == {"street", "studio", "others"}


def test_asked_and_others_are_measured_by_words_of_nobody_who_marks(begin: Start, here: World) -> None:
    assert here.again == tuple(take.caption(0) for take in here.gallery.takes)
    found = measure(begin.served, here, set(here.gallery.pids.tolist()))["asked"]
    scores = embed_captions(begin.served, here.again) @ embed_pixels(begin.served, here.gallery.pixels).T
    first = here.gallery.pids[scores.argmax(axis=1)] == here.gallery.pids
    assert found.metrics["r1"] == pytest.approx(first.mean())
    assert (found.first == 0).tolist() == first.tolist()


def test_a_query_is_harmed_when_its_first_match_falls_over_five_ranks() -> None:
    before = {"street": Measured({}, np.array([0, 0, 0, 7, 20]))}
    after = {"street": Measured({}, np.array([HARM, HARM + 1, 0, 13, 0]))}
    assert harmed(before, after, "street") == {"all": pytest.approx(2 / 5), "right": pytest.approx(1 / 3)}
    assert harmed(before, before, "street") == {"all": 0.0, "right": 0.0}
    never = {"street": Measured({}, np.array([3]))}
    assert harmed(never, never, "street") == {"all": 0.0, "right": 0.0}


def test_a_gallery_of_the_studio_is_tested_once() -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GALLERY", "REPLAY", "BASE", "TEST"):
            patch.setattr(simulate, f"{name}_PEOPLE", 2)
        there = world(SIZE, domain="studio", validation=True)
    assert set(there.tests) == {"studio"}
    assert there.domain == "studio"
    assert {(take.domain, take.use) for take in there.gallery.takes} == {("studio", "trial")}
    assert {take.use for take in there.tests["studio"].takes} == {"validation"}


def test_the_adapted_version_serves_at_the_start_only_where_it_passes(
    backbone: Backbone, here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = simulate.start(backbone, here, adapting=False)
    assert (plain.verdict, plain.served.config, plain.origin.config) == (None, None, None)
    adapted = stir(UPPerson(backbone, PetlConfig(prefix_length=2)))
    monkeypatch.setattr("train.finetuning.start.LEAST_HELD_BACK", 1)
    given: list[Adaptation] = []
    decisions: dict[Decision, PetlConfig | None] = {"promoted": adapted.config, "rejected": None}
    for decision, expected in decisions.items():
        verdict = Verdict(decision, "because", {})

        def judged(one: Adaptation, verdict: Verdict = verdict) -> tuple[UPPerson, Verdict]:
            given.append(one)
            return adapted, verdict

        monkeypatch.setattr(simulate, "adapt", judged)
        found = simulate.start(backbone, here)
        assert found.verdict == verdict
        assert found.served.config == expected
        assert found.origin.config is None, "the line begins with the plain backbone"
    assert np.array_equal(given[0].gallery, here.gallery.pixels)
    assert len(given[0].known.pids) + len(given[0].watched.pids) == len(here.replay.pids)


def test_a_version_of_fit_begins_its_own_line_and_knows_its_own_people(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GALLERY", "REPLAY", "BASE", "TEST"):
        monkeypatch.setattr(simulate, f"{name}_PEOPLE", 2)
    monkeypatch.setattr("train.finetuning.replay.BASE_PEOPLE", 3)
    fitted = stir(UPPerson(backbone, PetlConfig(prefix_length=2)))
    save_petl(fitted, tmp_path / "fitted")
    facts = {"trained_on": {"name": "foreign", "root": None, "people": 5}}
    (tmp_path / "fitted" / "facts.json").write_text(json.dumps(facts))
    here = world(SIZE, domain="foreign")
    begin, there = simulate.start_from(tmp_path / "fitted", backbone, here, cache=tmp_path / "cache")
    assert begin.verdict is None
    assert begin.origin is begin.served
    assert all(
        torch.equal(value, fitted.petl_parameters()[name]) for name, value in begin.served.petl_parameters().items()
    )
    assert (len(there.replay.pids), len(there.base.pids)) == (5, 6), "five people to replay, three judge, twice each"
    assert isinstance(there.replay, pedestrians.SyntheticSet)
    assert {(take.domain, take.use) for take in there.replay.takes} == {("foreign", "training")}
    assert there.gallery is here.gallery
    (tmp_path / "fitted" / "facts.json").write_text("{}")
    with pytest.raises(ValueError, match="does not say what it was trained on: expected a version that `fit` made"):
        simulate.start_from(tmp_path / "fitted", backbone, here)


def test_a_gallery_of_the_foreign_domain_reports_that_domain(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GALLERY", "REPLAY", "BASE", "TEST"):
        monkeypatch.setattr(simulate, f"{name}_PEOPLE", 2)
    there = world(SIZE, domain="foreign")
    assert set(there.tests) == {"foreign", "studio"}
    (report,) = play(Start(UPPerson(backbone), UPPerson(backbone)), there, UserConfig(captions=2, top=2))
    assert (report["domain"], report["generator"]) == ("foreign", pedestrians.FOREIGN_VERSION)
    assert "foreign R@1" in summary(report)


def test_users_side_by_side_report_what_they_do_one_after_the_other(begin: Start, here: World) -> None:
    learning = settings(1, queries=4, replay=2)
    users = [replace(USER, seed=seed) for seed in range(3)]
    work = partial(play, begin, here, learning=learning, gate=GateConfig(captions=2))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as each process has, or sums round in another order
    try:
        alone, beside = (list(side_by_side(work, users, workers=workers)) for workers in (1, 2))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert [report["user"]["seed"] for (report,) in beside] == [0, 1, 2]
    assert [report | {"seconds": 0} for (report,) in beside] == [report | {"seconds": 0} for (report,) in alone]


def test_processes_share_the_threads() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        assert list(side_by_side(threads_here, [0, 1, 2], workers=2)) == [(0, 2), (1, 2), (2, 2)]
        assert list(side_by_side(threads_here, [0, 1], workers=1)) == [(0, 5), (1, 5)], "this process, as it was"
        assert list(side_by_side(threads_here, [], workers=2)) == []
    finally:
        torch.set_num_threads(threads)


def threads_here(task: int) -> tuple[int, int]:
    return task, torch.get_num_threads()


def test_more_captions_than_pictures_are_refused(backbone: Backbone, here: World) -> None:
    with pytest.raises(ValueError, match="larger sample"):
        mark(UserConfig(captions=25), here, UPPerson(backbone))


@pytest.mark.parametrize("wrong", [{"captions": 0}, {"top": 0}, {"flip": 1.5}, {"flip": -0.1}, {"behaviour": "kind"}])
def test_a_user_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"UserConfig is out of range|a user is truthful, random, inverted"):
        replace(USER, **wrong)  # type: ignore[arg-type]
