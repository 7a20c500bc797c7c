"""The learning loop: only PETL parameters move, hits climb, the same seed gives the same weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core.backbones import Backbone
from core.model import UPPerson
from core.petl import PetlConfig
from tests.coloured import Mark, known_before, people
from tests.learn_config import altered, learning
from tests.small_clip import small_backbone
from train.captioned_images import CaptionedPictures
from train.embed import embed_captions, embed_pixels
from train.finetuning.adaptation import replayed
from train.finetuning.gate import hit_precision, hits_over_misses
from train.finetuning.loop import MIXES, Cancelled, Descent, _loss, _rate, at_once, learn, trainable
from train.finetuning.pairs import Pairs, build
from train.finetuning.sampler import Replay, Sampler
from train.studies import compare, simulate

PETL = PetlConfig(prefix_length=2, lora_rank=4, adapter_reduction=4)
QUICK = learning(40, lr=3e-3, queries=8, hits=1, misses=3, replay=10, hidden_words=0.0, occluded=0.0)
HERE = people()
PAIRS = build(HERE.marks())
KNOWN = known_before()
POLICIES: tuple[compare.Policy, ...] = ("none", "adapted", "shuffled", "full")


@pytest.fixture
def model() -> UPPerson:
    return UPPerson(small_backbone(), PETL)


@pytest.fixture
def replay(model: UPPerson) -> Replay:
    """Pairs of noise, as the model sees them before it learns."""
    return replayed(model, KNOWN)


def state(model: UPPerson) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.petl_parameters().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def ranking(model: UPPerson, pairs: Pairs) -> tuple[float, float]:
    """Mean share of (hit, miss) pairs in order, and mean precision of hits, over the pictures of `pairs`."""
    images = embed_pixels(model, np.stack([HERE.pixels[image] for image in pairs.image_ids]))
    scores = embed_captions(model, pairs.captions) @ images.T
    everything = np.ones(scores.shape, bool)
    auc = hits_over_misses(pairs.judged, scores)
    return float(np.nanmean(auc)), float(np.nanmean(hit_precision(pairs.judged, scores, everything)))


def test_only_petl_parameters_change_and_all_of_them_do(model: UPPerson, replay: Replay) -> None:
    backbone = {name: value.clone() for name, value in model.backbone.clip.state_dict().items()}
    before = state(model)
    learn(model, PAIRS, HERE.pixels, replay, altered(QUICK, min_steps=6, max_steps=6))
    for name, value in model.backbone.clip.state_dict().items():
        assert torch.equal(value, backbone[name]), name
    assert {name for name, value in state(model).items() if torch.equal(value, before[name])} == set()
    assert all(torch.isfinite(value).all() for value in state(model).values())
    assert not model.training
    assert all(not p.requires_grad and p.grad is None for p in model.backbone.clip.parameters())


def test_with_a_frozen_image_tower_only_the_text_tower_learns(model: UPPerson, replay: Replay) -> None:
    before, was = state(model), ranking(model, PAIRS)
    rows = embed_pixels(model, np.stack(list(HERE.pixels.values())))
    given = dict(zip(HERE.pixels, rows, strict=True))
    learn(model, PAIRS, given, replay, altered(QUICK, min_steps=60, max_steps=60, distil=0.0), frozen=True)
    moved = {name for name, value in state(model).items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("text.")}
    np.testing.assert_array_equal(embed_pixels(model, np.stack(list(HERE.pixels.values()))), rows)
    assert ranking(model, PAIRS)[0] > was[0] + 0.05


def test_without_petl_modules_all_that_wants_a_gradient_learns(replay: Replay) -> None:
    backbone = small_backbone()
    plain = UPPerson(replace(backbone, clip=copy.deepcopy(backbone.clip).requires_grad_()))
    before = {name: value.clone() for name, value in plain.clip.state_dict().items()}
    learn(plain, PAIRS, HERE.pixels, replay, altered(QUICK, lr=1e-4, min_steps=2, max_steps=2))
    after = plain.clip.state_dict()
    assert {"visual.conv1.weight", "transformer.resblocks.0.attn.in_proj_weight"} <= {
        name for name, value in before.items() if not torch.equal(value, after[name])
    }
    assert all(not p.requires_grad for p in backbone.clip.parameters())


def test_the_loss_falls_and_hits_climb_above_misses(model: UPPerson) -> None:
    def loss() -> float:
        dealer = Sampler(model, PAIRS, HERE.pixels, None, QUICK.sampling, np.random.default_rng(5))
        with torch.no_grad():
            return float(np.mean([float(_loss(model, dealer.next(), QUICK)) for _ in range(4)]))

    loss_before, before = loss(), ranking(model, PAIRS)
    learn(model, PAIRS, HERE.pixels, None, altered(QUICK, mix=0.9, max_steps=120, min_steps=120))
    after = ranking(model, PAIRS)
    assert loss() < 0.7 * loss_before
    assert after[0] > max(0.85, before[0] + 0.2)
    assert after[1] > before[1] + 0.2


def test_the_same_seed_gives_the_same_weights_bit_by_bit(model: UPPerson, replay: Replay) -> None:
    other, third = UPPerson(small_backbone(), PETL), UPPerson(small_backbone(), PETL)
    quick = altered(QUICK, min_steps=4, max_steps=4)
    learn(model, PAIRS, HERE.pixels, replay, quick)
    torch.manual_seed(99)  # the caller's random state plays no part
    learn(other, PAIRS, HERE.pixels, replay, quick)
    learn(third, PAIRS, HERE.pixels, replay, altered(quick, seed=1))
    assert same(state(model), state(other))
    assert not same(state(model), state(third))


def test_what_comes_back_is_a_mix_with_the_weights_it_began_with(model: UPPerson, replay: Replay) -> None:
    start, quick = state(model), altered(QUICK, min_steps=4, max_steps=4)
    half, whole = UPPerson(small_backbone(), PETL), UPPerson(small_backbone(), PETL)
    learn(half, PAIRS, HERE.pixels, replay, altered(quick, mix=0.5))
    learn(whole, PAIRS, HERE.pixels, replay, altered(quick, mix=1.0))
    for name, value in state(half).items():
        torch.testing.assert_close(value, (start[name] + state(whole)[name]) / 2)


def test_less_of_what_was_learnt_comes_back_while_too_much_is_forgotten(model: UPPerson, replay: Replay) -> None:
    """Forgetting is taken to be how far the weights went. The least share comes back whatever is forgotten."""
    start, quick = state(model), altered(QUICK, min_steps=4, max_steps=4, mix=1.0)
    whole = UPPerson(small_backbone(), PETL)
    learn(whole, PAIRS, HERE.pixels, replay, quick)

    def moved(model: UPPerson) -> float:
        return sum(float((value - start[name]).abs().sum()) for name, value in state(model).items())

    for allowed, share in ((1.001, 1.0), (0.7, 0.6), (0.0, MIXES[-1])):
        part = UPPerson(small_backbone(), PETL)
        config = altered(quick, forget=allowed * moved(whole))
        assert learn(part, PAIRS, HERE.pixels, replay, config, forgotten=moved).mix == share
        for name, value in state(part).items():
            torch.testing.assert_close(value, start[name].lerp(state(whole)[name], share))
    least = UPPerson(small_backbone(), PETL)
    quick = altered(quick, mix=0.1, forget=0.0)
    assert learn(least, PAIRS, HERE.pixels, replay, quick, forgotten=moved).mix == 0.1
    assert learn(least, PAIRS, HERE.pixels, replay, altered(quick, mix=0.7)).mix == 0.7, "nothing is watched"


def test_hits_alone_teach(model: UPPerson) -> None:
    hits = build([mark for mark in HERE.marks() if mark.verdict == "hit"])
    before = ranking(model, PAIRS)[1]
    learn(model, hits, HERE.pixels, None, QUICK)
    assert ranking(model, PAIRS)[1] > before


def test_one_hit_and_nothing_else_is_survived(model: UPPerson) -> None:
    learn(model, build([Mark("red", "0-0", "hit")]), HERE.pixels, None, altered(QUICK, min_steps=2, max_steps=2))
    assert all(torch.isfinite(value).all() for value in state(model).values())


@pytest.mark.parametrize("marks", [[], [Mark("red", "0-0", "miss")], [Mark("red", "0-0", "wrong_person")]])
def test_no_hit_is_refused(model: UPPerson, replay: Replay, marks: list[Mark]) -> None:
    before = state(model)
    with pytest.raises(ValueError, match="no hit among the marks: mark at least one picture as a hit"):
        learn(model, build(marks), HERE.pixels, replay, QUICK)
    assert same(before, state(model))


def test_progress_counts_up_to_one_and_may_stop_the_loop(model: UPPerson) -> None:
    shares: list[float] = []
    learn(model, PAIRS, HERE.pixels, None, altered(QUICK, min_steps=4, max_steps=4), progress=shares.append)
    assert shares == [0.25, 0.5, 0.75, 1.0]

    backbone = {name: value.clone() for name, value in model.backbone.clip.state_dict().items()}

    def stop(share: float) -> None:
        if share >= 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        learn(model, PAIRS, HERE.pixels, None, altered(QUICK, min_steps=4, max_steps=4), progress=stop)
    assert all(torch.equal(value, backbone[name]) for name, value in model.backbone.clip.state_dict().items())


def test_a_large_model_learns_the_same_in_parts_computed_once_more(
    model: UPPerson, replay: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy.deepcopy(model)
    quick = altered(QUICK, min_steps=3, max_steps=3)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)  # fp32: bf16 would add its own rounding
    learn(model, PAIRS, HERE.pixels, replay, quick)
    monkeypatch.setattr("core.backbones.LARGE", 1)
    monkeypatch.setattr("train.finetuning.loop.BLOCKS_AT_ONCE", 10)
    assert at_once(other) == 5, "two blocks"
    learn(other, PAIRS, HERE.pixels, replay, quick)
    for name, value in state(model).items():
        torch.testing.assert_close(state(other)[name], value, atol=1e-4, rtol=1e-3)


def without_hits() -> Pairs:
    """The pairs of all captions, of which the first four have no hit."""
    return build(
        replace(mark, verdict="miss") if mark.caption in HERE.captions[:4] and mark.verdict == "hit" else mark
        for mark in HERE.marks()
    )


def misses_of(model: UPPerson, pairs: Pairs, captions: Sequence[int]) -> list[float]:
    """The mean score of the misses of each of these captions."""
    images = embed_pixels(model, np.stack([HERE.pixels[image] for image in pairs.image_ids]))
    scores = embed_captions(model, [pairs.captions[caption] for caption in captions]) @ images.T
    return [float(row[pairs.judged[caption] < 0].mean()) for row, caption in zip(scores, captions, strict=True)]


def test_misses_of_captions_without_hits_are_pushed_off_what_they_found(model: UPPerson, replay: Replay) -> None:
    pairs, config = without_hits(), altered(QUICK, negative_only=4)
    negative_only = np.flatnonzero(~(pairs.judged > 0).any(axis=1)).tolist()
    pushed, left = copy.deepcopy(model), copy.deepcopy(model)
    learn(pushed, pairs, HERE.pixels, replay, altered(config, push=5.0))
    learn(left, pairs, HERE.pixels, replay, altered(config, push=0.0))
    assert np.mean(misses_of(pushed, pairs, negative_only)) < np.mean(misses_of(left, pairs, negative_only))


def test_an_unknown_pair_in_a_batch_does_not_teach(model: UPPerson) -> None:
    """Two captions' hits and nothing else known: each caption's score on the other's picture has no gradient."""
    pairs = build([Mark("red", "0-0", "hit"), Mark("blue", "5-0", "hit")])
    shy = altered(QUICK, safe_negatives=False)
    dealer = Sampler(model, pairs, HERE.pixels, None, shy.sampling, np.random.default_rng(0))
    loss = _loss(model, dealer.next(), shy)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(p.grad is None or not p.grad.any() for p in model.petl_parameters().values())


def drifted(model: UPPerson, before: UPPerson, ids: list[str]) -> float:
    """Mean squared distance between the rows of these pictures before and after."""
    pixels = np.stack([HERE.pixels[image] for image in ids])
    return float(((embed_pixels(model, pixels) - embed_pixels(before, pixels)) ** 2).sum(axis=1).mean())


def test_what_is_replayed_stays_near_where_it_was(model: UPPerson) -> None:
    """Pictures of people, whom shifts and shades leave recognisable; noise they do not."""
    pixels = np.stack([HERE.pixels[f"{person}-0"] for person in range(16)])
    known = CaptionedPictures(pixels=pixels, captions=tuple(f"number {n}" for n in range(16)), pids=np.arange(16))
    rows = embed_captions(model, known.captions), embed_pixels(model, known.pixels)
    moved = {}
    for distil in (0.0, 300.0):
        learnt = copy.deepcopy(model)
        learn(learnt, PAIRS, HERE.pixels, Replay(known, *rows), altered(QUICK, distil=distil))
        now = embed_captions(learnt, known.captions), embed_pixels(learnt, known.pixels)
        moved[distil] = [float(((a - b) ** 2).sum(axis=1).mean()) for a, b in zip(now, rows, strict=True)]
    assert all(0 < near < far / 5 for near, far in zip(moved[300.0], moved[0.0], strict=True))


def test_where_nothing_is_replayed_what_nobody_marked_stays_nearer(model: UPPerson) -> None:
    marked = build(HERE.marks(shown=1)[:16])
    unmarked = sorted(set(HERE.pixels) - set(marked.image_ids))
    assert len(unmarked) > 4
    start, moved = copy.deepcopy(model), {}
    for drift in (0.0, 10.0):
        learnt = copy.deepcopy(model)
        learn(learnt, marked, HERE.pixels, None, altered(QUICK, drift=drift), unmarked=unmarked)
        moved[drift] = drifted(learnt, start, unmarked)
    assert 0 < moved[10.0] < moved[0.0] / 2


def test_replayed_pairs_take_the_place_of_the_drift_term(model: UPPerson, replay: Replay) -> None:
    quick = altered(QUICK, min_steps=3, max_steps=3)

    def learnt(drift: float, count: int) -> dict[str, Tensor]:
        other = copy.deepcopy(model)
        learn(other, PAIRS, HERE.pixels, replay, altered(quick, drift=drift, replay=count))
        return state(other)

    assert same(learnt(10.0, 10), learnt(0.0, 10))
    assert not same(learnt(10.0, 0), learnt(0.0, 0)), "a set of which nothing is replayed holds nothing back"


def test_in_text_mode_captions_alone_are_held(model: UPPerson) -> None:
    rows = embed_pixels(model, np.stack(list(HERE.pixels.values())))
    given = dict(zip(HERE.pixels, rows, strict=True))
    before = embed_captions(model, PAIRS.captions)
    moved = {}
    for drift in (0.0, 10.0):
        learnt = copy.deepcopy(model)
        learn(learnt, PAIRS, given, None, altered(QUICK, drift=drift), frozen=True)
        moved[drift] = float(((embed_captions(learnt, PAIRS.captions) - before) ** 2).sum(axis=1).mean())
        np.testing.assert_array_equal(embed_pixels(learnt, np.stack(list(HERE.pixels.values()))), rows)
    assert 0 < moved[10.0] < moved[0.0]


def test_pictures_of_one_person_come_together(model: UPPerson) -> None:
    def spread(now: UPPerson) -> float:
        rows = embed_pixels(now, np.stack(list(HERE.pixels.values())))
        return float(np.mean([rows[n] @ rows[n + 1] for n in range(0, 32, 2)]) - (rows @ rows.T).mean())

    apart, together = copy.deepcopy(model), copy.deepcopy(model)
    quick = altered(QUICK, hits=2)
    learn(apart, PAIRS, HERE.pixels, None, altered(quick, person=0.0))
    learn(together, PAIRS, HERE.pixels, None, altered(quick, person=10.0))
    assert spread(together) > spread(apart)


# What marks are worth


@pytest.mark.long
def test_marks_teach_more_than_style_and_chance_do(mini: Backbone, cache: Path) -> None:
    """1,000 marks on test people, the mean of three users: full objective, beside two controls and plain `mini`."""
    here = simulate.world(mini.image_size, cache=cache)
    users = [simulate.UserConfig(captions=100, seed=seed) for seed in range(3)]
    reports = compare.compare(simulate.start(mini, here), here, users, POLICIES, workers=2)

    def mean(policy: str, name: str, metric: str = "r1") -> float:
        return float(np.mean([one[name][metric] for one in reports if one["policy"] == policy]))

    assert mean("full", "unseen") >= 0.43
    assert mean("full", "unseen") - mean("shuffled", "unseen") >= 0.06
    assert mean("full", "unseen") - mean("adapted", "unseen") >= 0.05
    assert mean("full", "asked") >= 0.72
    assert mean("none", "studio") - mean("full", "studio") <= 0.01
    assert mean("full", "harmed", "right") <= 0.08


# Its parts


def test_the_rate_rises_for_a_tenth_of_the_steps_and_falls_to_nothing() -> None:
    rates = [_rate(step, 100) for step in range(101)]
    assert rates[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0.0)
    assert _rate(0, 1) == 1.0


def test_steps_go_on_where_they_stopped_and_end_with_a_mix(model: UPPerson) -> None:
    other, began = copy.deepcopy(model), state(model)
    for one, stops in ((model, (2, 4)), (other, (4,))):
        run = Descent(one, trainable(one, ("image", "text")), QUICK.optimisation, 4)
        for stop in stops:
            run.until(stop, lambda: None, lambda _, _most, run=run: sum((p**2).sum() for p in run.parameters))
        assert run.step == 4
        assert not one.training
    assert same(state(model), state(other))
    means = dict(zip(state(model), run.averaged, strict=True))
    run.finish(0.25)
    for name, value in state(other).items():
        torch.testing.assert_close(value, began[name].lerp(means[name], 0.25))


def test_each_tower_has_its_weights(model: UPPerson) -> None:
    count = {towers: len(trainable(model, towers)) for towers in (("image",), ("text",), ("image", "text"))}
    assert count["image", "text"] == count["image",] + count["text",] == len(model.petl_parameters())
    assert min(count.values()) > 0
    assert trainable(UPPerson(small_backbone()), ("image", "text")) == []
