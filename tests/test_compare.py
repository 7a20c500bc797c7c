"""Policies side by side: each learns as its name says, and table and plot say what was found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.backbones import Backbone
from core.model import UPPerson
from tests.small_clip import small_backbone
from train.embed import embed_captions, embed_pixels
from train.finetuning.loop import LearnConfig
from train.finetuning.round import LEARNING
from train.studies import compare, simulate
from train.studies.compare import POLICIES, Report, configured, named, plot, table
from train.studies.simulate import UserConfig, World, mark, world


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone()


@pytest.fixture(scope="module")
def here() -> World:
    with pytest.MonkeyPatch.context() as patch:
        for name, people in {"GALLERY": 12, "REPLAY": 4, "BASE": 6, "TEST": 6}.items():
            patch.setattr(simulate, f"{name}_PEOPLE", people)
        patch.setattr(simulate, "GALLERY_SHOTS", 2)
        return world((48, 16))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    short = LearnConfig(queries=4, replay=2, min_steps=2, max_steps=2)
    monkeypatch.setattr(compare, "LEARNING", {"full": short, "text": short})
    monkeypatch.setattr(compare, "BACKBONE", short)


@pytest.mark.usefixtures("quick")
def test_every_policy_learns_what_it_says(backbone: Backbone, here: World) -> None:
    frozen = {name: value.clone() for name, value in backbone.clip.state_dict().items()}
    steps: list[int] = []
    found = compare.compare(
        backbone, here, [UserConfig(captions=12, top=24)], POLICIES, progress=lambda: steps.append(1)
    )
    assert len(steps) == len(POLICIES)
    assert [r["policy"] for r in found] == list(POLICIES)
    assert all((backbone.clip.state_dict()[name] == value).all() for name, value in frozen.items())
    by = {r["policy"]: r for r in found}
    everything = sum(p.numel() for p in backbone.clip.parameters())
    assert by["none"]["trained"] == by["none"]["closed"] == 0
    assert by["rerank"]["trained"] == by["rerank"]["closed"] == 0, "marked results keep their places"
    assert (by["rerank"]["marks"], by["none"]["marks"]) == (0, 12 * 24), "none of the gallery's"
    assert by["rerank"]["street"]["r5"] == by["none"]["street"]["r5"]
    assert by["rerank"]["street"]["mean_ap"] != by["none"]["street"]["mean_ap"]
    assert by["suggest"]["marks"] == by["full"]["marks"] == 12 * 24
    assert (
        0
        < by["text"]["trained"]
        < by["full"]["trained"]
        == by["suggest"]["trained"]
        == by["sdm"]["trained"]
        < by["backbone"]["trained"]
    )
    assert by["backbone"]["trained"] == everything
    assert all(r["street"]["queries"] == r["studio"]["queries"] == 12 for r in found)


def test_users_who_differ_in_marks_alone_are_asked_once_to_re_rank(backbone: Backbone, here: World) -> None:
    users = [UserConfig(captions=captions, top=4, seed=seed) for seed in (0, 1) for captions in (3, 6)]
    steps: list[int] = []
    found = compare.compare(backbone, here, users, ["none", "rerank"], workers=2, progress=lambda: steps.append(1))
    assert len(steps) == len(found)
    asked = sorted((r["policy"], r["marks"], r["seed"]) for r in found)
    assert asked == [
        *[("none", marks, seed) for marks in (12, 24) for seed in (0, 1)],
        *[("rerank", 0, seed) for seed in (0, 1)],
    ]
    alone = compare.compare(backbone, here, users, ["none", "rerank"])
    assert found == alone


@pytest.mark.usefixtures("quick")
def test_text_mode_moves_captions_and_no_picture(backbone: Backbone, here: World) -> None:
    plain = UPPerson(backbone)
    marks = mark(UserConfig(captions=12, top=24), here, plain)
    model = compare.teach("text", backbone, here, marks)
    data = here.tests["street"]
    np.testing.assert_array_equal(embed_pixels(model, data.pixels), embed_pixels(plain, data.pixels))
    assert np.abs(embed_captions(model, data.captions) - embed_captions(plain, data.captions)).max() > 1e-4


def test_a_search_without_an_unmarked_or_a_marked_result_is_not_re_ranked(backbone: Backbone, here: World) -> None:
    plain, everything = UPPerson(backbone), len(here.tests["street"].pids)
    expected = simulate.measure(plain, here)
    for judged in (0, everything):
        assert simulate.measure_reranked(plain, here, UserConfig(), judged=judged) == expected


def test_half_of_the_marks_are_on_suggestions(backbone: Backbone, here: World) -> None:
    plain, user = UPPerson(backbone), UserConfig(captions=4, top=6)
    marks, first = simulate.mark_suggested(user, here, plain), mark(user, here, plain)
    pairs = {(m.caption, m.image_id): m for m in marks}
    assert len(marks) == len(pairs) == len(first) == 24
    assert {(m.caption, m.image_id) for m in first if m.rank <= 3} <= pairs.keys()
    truth = {(m.caption, m.image_id): m.verdict for m in mark(UserConfig(captions=4, top=24), here, plain)}
    assert all(truth[pair] == m.verdict for pair, m in pairs.items())


def test_policies_leave_out_what_they_do_not_have() -> None:
    full = LEARNING["full"]
    assert configured("misses") == replace(full, look=0.0, mix=1.0, hitless=0, push=0.0, hold=0.0)
    assert configured("sdm") == replace(configured("misses"), misses=0)
    assert configured("full") == configured("suggest") == full
    assert replace(full, lr=1e-4) == compare.BACKBONE
    assert configured("text") == LEARNING["text"]
    assert min(full.look, 1 - full.mix, full.hitless, full.push, full.hold, full.misses) > 0


@pytest.mark.usefixtures("quick")
def test_policies_that_end_with_all_that_was_learnt_watch_nothing(
    backbone: Backbone, here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bool, bool]] = []
    plain = compare.learn

    def noted(*args: object, **options: object) -> float:
        asked.append((options["held"] is not None, options["forgotten"] is not None))
        return plain(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(compare, "learn", noted)
    monkeypatch.setattr("train.finetuning.round.LEAST_HELD_BACK", 1)
    marks = mark(UserConfig(captions=12, top=24), here, UPPerson(backbone))
    for policy in ("sdm", "misses", "full", "suggest", "text", "backbone"):
        compare.teach(policy, backbone, here, marks)
    assert asked == [(False, False)] * 2 + [(True, True)] * 4


def test_policies_are_chosen_by_name() -> None:
    assert named("") == []
    assert named("all") == list(POLICIES)
    assert named("text, none") == ["none", "text"]
    with pytest.raises(ValueError, match="unknown policy best: choose among none, rerank"):
        named("full,best")


def reports() -> list[Report]:
    found = []
    for policy, gain in (("none", 0.0), ("full", 0.1)):
        for marks in (100, 1000):
            for seed in range(3):
                street = {"r1": 0.25 + gain * marks / 1000 + seed / 100 * gain, "r10": 0.6, "mean_ap": 0.3}
                found.append(
                    {"policy": policy, "seed": seed, "marks": marks, "hits": 9, "trained": 1234, "closed": gain}
                    | {"street": street, "studio": {"r1": 0.9, "r10": 1.0, "mean_ap": 0.9}}
                )
    return found


def test_the_table_tells_mean_and_spread_over_users() -> None:
    lines = table(reports()).splitlines()
    assert len(lines) == 2 + 4
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2].startswith("| no learning | 100 | 25.0 ± 0.0 |")
    assert lines[5].startswith("| full objective | 1,000 | 35.1 ± 0.1 | 60.0 ± 0.0 | 30.0 ± 0.0 | 10.0 ± 0.0 | 90.0")
    assert "±" not in table(reports()[:1])


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    plot(reports(), tmp_path / "new" / "learning.png")
    with Image.open(tmp_path / "new" / "learning.png") as picture:
        assert picture.size == (840, 600)
        assert len(picture.convert("RGB").getcolors(1_000_000) or []) > 10
    with pytest.raises(ValueError, match="not supported"):
        plot(reports(), tmp_path / "learning.nothing")
