"""Policies side by side: each learns as its name says, and table and plot say what was found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.backbones import Backbone
from core.model import UPPerson
from tests.learn_config import altered, learning
from tests.small_clip import small_backbone
from train.embed import embed_captions, embed_pixels
from train.finetuning.adaptation import Adaptation, AdaptConfig
from train.finetuning.config import LEARNING, Optimisation
from train.finetuning.controls import shuffled
from train.finetuning.pairs import Pairs, build
from train.studies import compare, simulate
from train.studies.choices import POLICIES, named
from train.studies.compare import BACKBONE_LR, Report, configured, plot, summary, table
from train.studies.simulate import Start, UserConfig, World, mark, world


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone()


@pytest.fixture(scope="module")
def here() -> World:
    with pytest.MonkeyPatch.context() as patch:
        for name, people in {"GALLERY": 12, "REPLAY": 20, "BASE": 6, "TEST": 6}.items():
            patch.setattr(simulate, f"{name}_PEOPLE", people)
        patch.setattr(simulate, "GALLERY_SHOTS", 2)
        return world((48, 16))


@pytest.fixture
def begin(backbone: Backbone) -> Start:
    return Start(UPPerson(backbone), UPPerson(backbone))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of each kind, and pairs held back although there are few."""
    short = learning(2, queries=4, replay=2)
    monkeypatch.setattr(compare, "LEARNING", {"full": short, "text": altered(short, distil=0.0)})
    once = AdaptConfig(batch=4, optimisation=Optimisation(max_steps=1))
    monkeypatch.setattr(
        compare, "Adaptation", lambda *given: Adaptation(*given, config=once)
    )  # `_adapted_backbone` takes the default settings, which are long
    monkeypatch.setattr("train.finetuning.start.LEAST_HELD_BACK", 1)


@pytest.mark.usefixtures("quick")
def test_every_policy_learns_what_it_says(backbone: Backbone, begin: Start, here: World) -> None:
    frozen = {name: value.clone() for name, value in backbone.clip.state_dict().items()}
    steps: list[int] = []
    found = compare.compare(begin, here, [UserConfig(captions=12, top=24)], POLICIES, progress=lambda: steps.append(1))
    assert len(steps) == len(POLICIES)
    assert [r["policy"] for r in found] == list(POLICIES)
    assert all((backbone.clip.state_dict()[name] == value).all() for name, value in frozen.items())
    by = {r["policy"]: r for r in found}
    everything = sum(p.numel() for p in backbone.clip.parameters())
    untaught = ("none", "rerank", "adapted")
    assert [by[name]["trained"] for name in untaught] == [0, 0, 0]
    assert [by[name]["hits"] for name in untaught] == [0, 0, 0], "none of the gallery's marks is taken"
    assert by["rerank"]["unseen"]["r1"] == by["none"]["unseen"]["r1"], "marked results keep their places"
    assert by["rerank"]["unseen"]["r5"] == by["none"]["unseen"]["r5"]
    assert by["rerank"]["unseen"]["mean_ap"] != by["none"]["unseen"]["mean_ap"]
    assert by["adapted"]["unseen"] == by["none"]["unseen"], "nothing was adapted at this start"
    assert by["adapted"]["harmed"] == {"all": 0.0, "right": 0.0}
    assert by["suggest"]["marks"] == by["full"]["marks"] == 12 * 24
    assert by["shuffled"]["hits"] == by["full"]["hits"] > 0
    assert (
        0
        < by["text"]["trained"]
        < by["full"]["trained"]
        == by["shuffled"]["trained"]
        == by["suggest"]["trained"]
        == by["sdm"]["trained"]
        == by["misses"]["trained"]
        < by["backbone"]["trained"]
    )
    assert by["backbone"]["trained"] == everything
    assert all(r["unseen"]["queries"] == r["studio"]["queries"] == 12 for r in found)
    assert all(r["domain"] == "street" for r in found)
    assert all("asked" in r for r in found if r["policy"] != "rerank")


def test_users_who_differ_in_marks_alone_are_asked_once_to_re_rank(begin: Start, here: World) -> None:
    users = [UserConfig(captions=captions, top=4, seed=seed) for seed in (0, 1) for captions in (3, 6)]
    steps: list[int] = []
    found = compare.compare(begin, here, users, ["none", "rerank"], workers=2, progress=lambda: steps.append(1))
    assert len(steps) == len(found)
    asked = sorted((r["policy"], r["marks"], r["seed"]) for r in found)
    assert asked == [
        *[("none", marks, seed) for marks in (12, 24) for seed in (0, 1)],
        *[("rerank", 24, seed) for seed in (0, 1)],
    ]
    alone = compare.compare(begin, here, users, ["none", "rerank"])
    assert found == alone


@pytest.mark.usefixtures("quick")
def test_text_mode_moves_captions_and_no_picture(backbone: Backbone, here: World) -> None:
    plain = UPPerson(backbone)
    marks = mark(UserConfig(captions=12, top=24), here, plain)
    model = compare.teach("text", plain, here, marks)
    data = here.tests["street"]
    np.testing.assert_array_equal(embed_pixels(model, data.pixels), embed_pixels(plain, data.pixels))
    assert np.abs(embed_captions(model, data.captions) - embed_captions(plain, data.captions)).max() > 1e-4


def test_a_search_without_an_unmarked_or_a_marked_result_is_not_re_ranked(backbone: Backbone, here: World) -> None:
    plain, everything = UPPerson(backbone), len(here.tests["street"].pids)
    expected = simulate.measure(plain, here)
    for judged in (0, everything):
        found = simulate.measure_reranked(plain, here, UserConfig(), judged=judged)
        assert found.keys() == here.tests.keys()
        for name, one in found.items():
            assert one.metrics == expected[name].metrics
            np.testing.assert_array_equal(one.first, expected[name].first)


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
    sdm, misses = configured("sdm"), configured("misses")
    assert misses == altered(full, occluded=0.0, negative_only=0, person=0.0, push=0.0, mix=1.0, distil=0.0)
    assert sdm == altered(misses, misses=0)
    assert configured("full") == configured("suggest") == configured("shuffled") == full
    assert configured("backbone") == altered(full, lr=BACKBONE_LR)
    assert configured("text") == LEARNING["text"]
    values = {name: value for part in asdict(full).values() for name, value in part.items()}
    used = ("occluded", "negative_only", "person", "push", "distil", "misses")
    assert all(values[name] > 0 for name in used), "else a policy would leave out what is not there"
    assert values["mix"] < 1


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Pairs, bool]]:
    """The pairs that each run of the loop was given, and whether forgetting was watched."""
    found: list[tuple[Pairs, bool]] = []
    plain = compare.learn

    def noted(*args: object, **options: object) -> float:
        assert isinstance(args[1], Pairs)
        found.append((args[1], options["forgotten"] is not None))
        return plain(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(compare, "learn", noted)
    return found


@pytest.mark.usefixtures("quick")
def test_policies_that_end_with_all_that_was_learnt_watch_nothing(
    backbone: Backbone, here: World, taught: list[tuple[Pairs, bool]]
) -> None:
    served = UPPerson(backbone)
    marks = mark(UserConfig(captions=12, top=24), here, served)
    for policy in ("sdm", "misses", "full", "suggest", "text", "backbone"):
        compare.teach(policy, served, here, marks)
    assert [watched for _, watched in taught] == [False] * 2 + [True] * 4


@pytest.mark.usefixtures("quick")
def test_the_control_learns_the_same_marks_shuffled(
    backbone: Backbone, here: World, taught: list[tuple[Pairs, bool]]
) -> None:
    served = UPPerson(backbone)
    marks = mark(UserConfig(captions=12, top=24), here, served)
    for policy in ("full", "shuffled"):
        compare.teach(policy, served, here, marks)
    (true, _), (control, _) = taught
    expected = shuffled(build(marks), np.random.default_rng(0))
    assert np.array_equal(control.judged, expected.judged)
    assert not np.array_equal(control.judged, true.judged)
    np.testing.assert_array_equal((control.judged > 0).sum(axis=1), (true.judged > 0).sum(axis=1))


def test_policies_are_chosen_by_name() -> None:
    assert named("") == []
    assert named("all") == list(POLICIES)
    assert named("text, none") == ["none", "text"]
    with pytest.raises(ValueError, match="unknown policy best: choose among none, rerank"):
        named("full,best")


def reports() -> list[Report]:
    found = []
    for policy, gain in (("adapted", 0.0), ("shuffled", 0.02), ("full", 0.1)):
        for marks in (100, 1000):
            for seed in range(3):
                unseen = {"r1": 0.25 + gain * marks / 1000 + seed / 100 * gain, "r10": 0.6, "mean_ap": 0.3}
                other = {"r1": 0.5 + gain, "r10": 1.0, "mean_ap": 0.9}
                row = {"policy": policy, "seed": seed, "marks": marks, "hits": 9, "trained": 1234, "domain": "street"}
                sets = {"unseen": unseen, "studio": {"r1": 0.9}, "asked": other, "others": other}
                found.append(row | sets | {"harmed": {"all": 0.1, "right": gain}})
    return found


def test_the_table_has_mean_and_spread_over_users() -> None:
    lines = table(reports()).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2].startswith("| adapted, no marks | 100 | 25.0 ± 0.0 |")
    assert lines[7].startswith("| full objective | 1,000 | 35.1 ± 0.1 | 60.0 ± 0.0 | 30.0 ± 0.0 | 90.0 ± 0.0 | 60.0")
    assert "±" not in table(reports()[:1])


def test_what_the_marks_gain_over_each_control_is_summed_up() -> None:
    found = summary(reports())
    assert list(found) == [f"{marks} marks, full minus {c}" for marks in (100, 1000) for c in ("shuffled", "adapted")]
    assert found["1000 marks, full minus adapted"]["unseen"] == pytest.approx(0.101)
    assert found["1000 marks, full minus shuffled"]["asked"] == pytest.approx(0.08)
    assert found["100 marks, full minus adapted"]["studio"] == 0.0
    assert "1000 marks, full minus adapted: unseen +10.1, studio +0.0, asked +10.0, others +10.0" in table(reports())
    assert summary([r for r in reports() if r["policy"] != "full"]) == {}


def test_sets_that_not_every_user_has_are_left_out_of_the_summary() -> None:
    """A user who asks for all people of the gallery leaves none for `others`; a studio gallery has no other studio."""
    some = [{name: value for name, value in r.items() if name != "studio"} for r in reports()]
    del some[0]["others"]
    assert set(summary(some)["1000 marks, full minus adapted"]) == {"unseen", "asked", "others"}
    assert set(summary(some)["100 marks, full minus adapted"]) == {"unseen", "asked"}
    assert "| adapted, no marks | 100 |" in table(some)


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    plot(reports(), tmp_path / "new" / "learning.png")
    with Image.open(tmp_path / "new" / "learning.png") as picture:
        assert picture.size == (840, 600)
        assert len(picture.convert("RGB").getcolors(1_000_000) or []) > 10
    with pytest.raises(ValueError, match="not supported"):
        plot(reports(), tmp_path / "learning.nothing")
