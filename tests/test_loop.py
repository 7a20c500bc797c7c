"""The learning loop: only PETL parameters move, hits climb, the same seed gives the same weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from core.model import UPPerson
from core.petl import PetlConfig
from tests.coloured import Mark, known_before, people
from tests.small_clip import small_backbone
from train.captioned_images import CaptionedPictures
from train.embed import embed_captions, embed_pixels
from train.finetuning.gate import hit_precision, hits_over_misses
from train.finetuning.loop import MIXES, Cancelled, Held, LearnConfig, Memory, _Batches, _loss, learn
from train.finetuning.pairs import NEGATIVE, POSITIVE, SAFE, UNKNOWN, Pairs, build

PETL = PetlConfig(prefix_length=2, lora_rank=4, adapter_reduction=4)
QUICK = LearnConfig(lr=3e-3, queries=8, misses=3, replay=10, min_steps=40, max_steps=40, hidden_words=0.0)
HERE = people()
PAIRS = build(HERE.marks())
REPLAY = known_before()


@pytest.fixture
def model() -> UPPerson:
    return UPPerson(small_backbone(), PETL)


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


def test_only_petl_parameters_change_and_all_of_them_do(model: UPPerson) -> None:
    backbone = {name: value.clone() for name, value in model.backbone.clip.state_dict().items()}
    before = state(model)
    learn(model, PAIRS, HERE.pixels, REPLAY, replace(QUICK, min_steps=6, max_steps=6))
    for name, value in model.backbone.clip.state_dict().items():
        assert torch.equal(value, backbone[name]), name
    assert {name for name, value in state(model).items() if torch.equal(value, before[name])} == set()
    assert all(torch.isfinite(value).all() for value in state(model).values())
    assert not model.training
    assert all(not p.requires_grad and p.grad is None for p in model.backbone.clip.parameters())


def test_with_a_frozen_image_tower_only_the_text_tower_learns(model: UPPerson) -> None:
    before, was = state(model), ranking(model, PAIRS)
    rows = embed_pixels(model, np.stack(list(HERE.pixels.values())))
    memory = Memory(dict(zip(HERE.pixels, rows, strict=True)), embed_pixels(model, REPLAY.pixels))
    learn(model, PAIRS, HERE.pixels, REPLAY, replace(QUICK, min_steps=60, max_steps=60), frozen=memory)
    moved = {name for name, value in state(model).items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("text.")}
    np.testing.assert_array_equal(embed_pixels(model, np.stack(list(HERE.pixels.values()))), rows)
    assert ranking(model, PAIRS)[0] > was[0] + 0.1


def test_without_petl_modules_all_that_wants_a_gradient_learns() -> None:
    backbone = small_backbone()
    plain = UPPerson(replace(backbone, clip=copy.deepcopy(backbone.clip).requires_grad_()))
    before = {name: value.clone() for name, value in plain.clip.state_dict().items()}
    learn(plain, PAIRS, HERE.pixels, REPLAY, replace(QUICK, lr=1e-4, min_steps=2, max_steps=2))
    after = plain.clip.state_dict()
    assert {"visual.conv1.weight", "transformer.resblocks.0.attn.in_proj_weight"} <= {
        name for name, value in before.items() if not torch.equal(value, after[name])
    }
    assert all(not p.requires_grad for p in backbone.clip.parameters())


def test_the_loss_falls_and_hits_climb_above_misses(model: UPPerson) -> None:
    def loss() -> float:
        dealer = _Batches(model, PAIRS, HERE.pixels, None, QUICK, np.random.default_rng(5))
        with torch.no_grad():
            return float(np.mean([float(_loss(model, dealer.next(), QUICK)) for _ in range(4)]))

    loss_before, before = loss(), ranking(model, PAIRS)
    learn(model, PAIRS, HERE.pixels, None, replace(QUICK, max_steps=120, min_steps=120))
    after = ranking(model, PAIRS)
    assert loss() < 0.7 * loss_before
    assert after[0] > max(0.85, before[0] + 0.2)
    assert after[1] > before[1] + 0.2


def test_the_same_seed_gives_the_same_weights_bit_by_bit(model: UPPerson) -> None:
    other, third = UPPerson(small_backbone(), PETL), UPPerson(small_backbone(), PETL)
    quick = replace(QUICK, min_steps=4, max_steps=4)
    learn(model, PAIRS, HERE.pixels, REPLAY, quick)
    torch.manual_seed(99)  # the caller's random state plays no part
    learn(other, PAIRS, HERE.pixels, REPLAY, quick)
    learn(third, PAIRS, HERE.pixels, REPLAY, replace(quick, seed=1))
    assert same(state(model), state(other))
    assert not same(state(model), state(third))


def test_what_comes_back_is_a_mix_with_the_weights_it_began_with(model: UPPerson) -> None:
    start, quick = state(model), replace(QUICK, min_steps=4, max_steps=4)
    half, whole = UPPerson(small_backbone(), PETL), UPPerson(small_backbone(), PETL)
    learn(half, PAIRS, HERE.pixels, REPLAY, replace(quick, mix=0.5))
    learn(whole, PAIRS, HERE.pixels, REPLAY, replace(quick, mix=1.0))
    for name, value in state(half).items():
        torch.testing.assert_close(value, (start[name] + state(whole)[name]) / 2)


def test_less_of_what_was_learnt_comes_back_while_too_much_is_forgotten(model: UPPerson) -> None:
    """Forgetting is taken to be how far the weights went. The least share comes back whatever is forgotten."""
    start, quick = state(model), replace(QUICK, min_steps=4, max_steps=4, mix=1.0)
    whole = UPPerson(small_backbone(), PETL)
    learn(whole, PAIRS, HERE.pixels, REPLAY, quick)

    def moved(model: UPPerson) -> float:
        return sum(float((value - start[name]).abs().sum()) for name, value in state(model).items())

    for allowed, share in ((1.001, 1.0), (0.7, 0.6), (0.0, MIXES[-1])):
        part = UPPerson(small_backbone(), PETL)
        config = replace(quick, forget=allowed * moved(whole))
        assert learn(part, PAIRS, HERE.pixels, REPLAY, config, forgotten=moved) == share
        for name, value in state(part).items():
            torch.testing.assert_close(value, start[name].lerp(state(whole)[name], share))
    assert learn(UPPerson(small_backbone(), PETL), PAIRS, HERE.pixels, REPLAY, replace(quick, mix=0.1)) == 0.1


def test_hits_alone_teach(model: UPPerson) -> None:
    hits = build([mark for mark in HERE.marks() if mark.verdict == "hit"])
    before = ranking(model, PAIRS)[1]
    learn(model, hits, HERE.pixels, None, QUICK)
    assert ranking(model, PAIRS)[1] > before


def test_one_hit_and_nothing_else_is_survived(model: UPPerson) -> None:
    learn(model, build([Mark("red", "0-0", "hit")]), HERE.pixels, None, replace(QUICK, min_steps=2, max_steps=2))
    assert all(torch.isfinite(value).all() for value in state(model).values())


@pytest.mark.parametrize("marks", [[], [Mark("red", "0-0", "miss")], [Mark("red", "0-0", "wrong_person")]])
def test_no_hit_is_refused(model: UPPerson, marks: list[Mark]) -> None:
    before = state(model)
    with pytest.raises(ValueError, match="no hit among the marks: mark at least one picture as a hit"):
        learn(model, build(marks), HERE.pixels, REPLAY, QUICK)
    assert same(before, state(model))


def test_progress_counts_up_to_one_and_may_stop_the_loop(model: UPPerson) -> None:
    told: list[float] = []
    learn(model, PAIRS, HERE.pixels, None, replace(QUICK, min_steps=4, max_steps=4), progress=told.append)
    assert told == [0.25, 0.5, 0.75, 1.0]

    backbone = {name: value.clone() for name, value in model.backbone.clip.state_dict().items()}

    def stop(share: float) -> None:
        if share >= 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        learn(model, PAIRS, HERE.pixels, None, replace(QUICK, min_steps=4, max_steps=4), progress=stop)
    assert all(torch.equal(value, backbone[name]) for name, value in model.backbone.clip.state_dict().items())


# Batches


def batches(model: UPPerson, config: LearnConfig = QUICK, *, replay: bool = True) -> _Batches:
    return _Batches(model, PAIRS, HERE.pixels, REPLAY if replay else None, config, np.random.default_rng(0))


def test_every_caption_with_a_hit_has_its_turn_before_any_comes_again(model: UPPerson) -> None:
    dealer = batches(model)
    rounds = [dealer._captions() for _ in range(4)]
    assert [len(r) for r in rounds] == [8] * 4
    assert sorted(np.concatenate(rounds[:2])) == list(range(16))
    assert sorted(np.concatenate(rounds[2:])) == list(range(16))


def test_a_batch_larger_than_the_marks_takes_each_caption_once(model: UPPerson) -> None:
    dealer = batches(model, replace(QUICK, queries=500))
    for _ in range(3):
        assert sorted(dealer._captions()) == list(range(16))


def test_a_batch_says_what_is_known_of_each_pair(model: UPPerson) -> None:
    batch = batches(model).next()
    queries, pictures = batch.relation.shape
    assert (len(batch.tokens), len(batch.pictures)) == (queries, pictures)
    assert queries == 8 + 10
    marks, replay = batch.relation[:8, :-10], batch.relation[8:, -10:]
    assert torch.equal(replay, torch.where(torch.eye(10).bool(), POSITIVE, NEGATIVE).to(torch.int8))
    assert (batch.relation[:8, -10:] == NEGATIVE).all()
    assert (batch.relation[8:, :-10] == NEGATIVE).all()
    assert (marks == POSITIVE).any(dim=1).all()  # every caption has its hit
    assert marks.unique().tolist() == [SAFE, NEGATIVE, POSITIVE]
    assert (batch.weight == 1).all()


def test_a_mark_that_somebody_contradicts_counts_less(model: UPPerson) -> None:
    doubt = [Mark(HERE.captions[0], "0-0", verdict) for verdict in ("hit", "hit", "miss")]
    doubt += [Mark(HERE.captions[1], "9-0", verdict) for verdict in ("miss", "miss", "hit")]
    pairs = build([*doubt, Mark(HERE.captions[1], "1-0", "hit"), Mark(HERE.captions[2], "3-0", "miss")])
    config = replace(QUICK, hitless=1)
    batch = _Batches(model, pairs, HERE.pixels, REPLAY, config, np.random.default_rng(0)).next()
    assert len(batch.relation) == 2 + 1 + 10
    hits, misses = batch.relation == POSITIVE, batch.relation == NEGATIVE
    assert sorted(batch.weight[:2][hits[:2]].tolist()) == pytest.approx([1 / 3, 1])
    assert sorted(batch.weight[:2, :-10][misses[:2, :-10]].tolist()) == pytest.approx([1 / 3])
    assert (batch.weight[3:] == 1).all(), "what is replayed is sure"
    assert torch.equal(batch.weight > 0, batch.relation != UNKNOWN)
    assert batch.alone[2].max() == 1


def test_a_large_model_learns_the_same_from_each_block_computed_once_more(
    model: UPPerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, asked = copy.deepcopy(model), []
    quick = replace(QUICK, min_steps=3, max_steps=3)
    learn(model, PAIRS, HERE.pixels, REPLAY, quick)
    monkeypatch.setattr("train.finetuning.loop.LARGE", 1)
    plain = UPPerson.gradient_checkpointing

    def noted(self: UPPerson, enabled: bool) -> None:
        asked.append(enabled)
        plain(self, enabled)

    monkeypatch.setattr(UPPerson, "gradient_checkpointing", noted)
    learn(other, PAIRS, HERE.pixels, REPLAY, quick)
    assert asked == [True, False]
    for name, value in state(model).items():
        torch.testing.assert_close(state(other)[name], value)


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


def test_captions_with_misses_alone_have_their_turn_too(model: UPPerson) -> None:
    pairs, config = without_hits(), replace(QUICK, hitless=3)
    hitless = np.flatnonzero(~(pairs.judged > 0).any(axis=1))
    assert len(hitless) == 4
    batch = _Batches(model, pairs, HERE.pixels, REPLAY, config, np.random.default_rng(0)).next()
    assert len(batch.relation) == 8 + 3 + 10
    rows = (batch.alone > 0).any(dim=1)
    assert rows.nonzero().flatten().tolist() == [8, 9, 10]
    assert not batch.alone[:, -10:].any(), "replayed pictures are none of their misses"
    assert (batch.relation[batch.alone > 0] == NEGATIVE).all()
    assert batch.alone.unique().tolist() == [0, 1]
    assert set(batch.relation[8:11, :-10].unique().tolist()) == {NEGATIVE, UNKNOWN}, "nothing is safe of them"
    assert torch.equal(batch.threshold != 0, rows)
    before = misses_of(model, pairs, hitless.tolist())
    assert {round(float(value), 4) for value in batch.threshold[rows]} < {round(value, 4) for value in before}


def test_the_threshold_is_that_of_the_model_and_not_of_whoever_showed_the_pictures(model: UPPerson) -> None:
    pairs, config = without_hits(), replace(QUICK, hitless=4)
    other = replace(pairs, scores=pairs.scores + 0.5)
    batches = [_Batches(model, p, HERE.pixels, None, config, np.random.default_rng(0)).next() for p in (pairs, other)]
    assert torch.equal(batches[0].threshold, batches[1].threshold)
    rows = embed_pixels(model, np.stack(list(HERE.pixels.values())))
    memory = Memory(dict(zip(HERE.pixels, rows, strict=True)))
    frozen = _Batches(model, pairs, HERE.pixels, None, config, np.random.default_rng(0), memory).next()
    torch.testing.assert_close(frozen.threshold, batches[0].threshold)


def test_misses_alone_are_pushed_off_what_they_found(model: UPPerson) -> None:
    pairs, config = without_hits(), replace(QUICK, hitless=4)
    hitless = np.flatnonzero(~(pairs.judged > 0).any(axis=1)).tolist()
    pushed, left = copy.deepcopy(model), copy.deepcopy(model)
    learn(pushed, pairs, HERE.pixels, REPLAY, replace(config, push=5.0))
    learn(left, pairs, HERE.pixels, REPLAY, replace(config, push=0.0))
    assert np.mean(misses_of(pushed, pairs, hitless)) < np.mean(misses_of(left, pairs, hitless))


def test_safe_negatives_can_be_left_unknown(model: UPPerson) -> None:
    assert (PAIRS.relation == SAFE).any()
    bold, shy = batches(model), batches(model, replace(QUICK, safe_negatives=False))
    assert (bold.relation == SAFE).sum() == (PAIRS.relation == SAFE).sum()
    assert np.array_equal(shy.relation == UNKNOWN, (PAIRS.relation == SAFE) | (PAIRS.relation == UNKNOWN))


def test_an_unknown_pair_in_a_batch_does_not_teach(model: UPPerson) -> None:
    """Two captions' hits and nothing else known: each caption's score on the other's picture has no gradient."""
    pairs = build([Mark("red", "0-0", "hit"), Mark("blue", "5-0", "hit")])
    shy = replace(QUICK, safe_negatives=False)
    dealer = _Batches(model, pairs, HERE.pixels, None, shy, np.random.default_rng(0))
    loss = _loss(model, dealer.next(), shy)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(p.grad is None or not p.grad.any() for p in model.petl_parameters().values())


# Config


def test_the_number_of_steps_follows_the_captions_with_hits() -> None:
    config = LearnConfig(queries=4, passes=10, min_steps=5, max_steps=1000)
    assert config.steps(PAIRS) == 40
    assert replace(config, max_steps=30).steps(PAIRS) == 30
    assert replace(config, min_steps=50).steps(PAIRS) == 50


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        *(({name: 0}, f"{name} is at least 1, not 0") for name in ("queries", "max_steps", "anchors")),
        *(
            ({name: -0.5}, f"{name} is at least 0, not -0.5")
            for name in ("misses", "hitless", "push", "replay", "passes", "min_steps", "weight_decay", "forget", "hold")
        ),
        ({"drift": float("nan")}, "drift is at least 0, not nan"),
        ({"hold": float("inf")}, "hold is at least 0, not inf"),
        ({"lr": 0.0}, "needs 0 < lr < 1"),
        ({"lr": 2.0}, "needs 0 < lr < 1"),
        ({"average": 1.0}, "0 <= average < 1"),
        ({"hidden_words": 1.0}, "hidden_words is a share"),
        ({"look": 0.6}, "look is a share in"),
        ({"mix": 0.0}, "mix is a share in"),
    ],
)
def test_a_config_out_of_range_is_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(QUICK, **wrong)  # type: ignore[arg-type]


def drifted(model: UPPerson, before: UPPerson, ids: list[str]) -> float:
    """Mean squared distance between the rows of these pictures before and after."""
    pixels = np.stack([HERE.pixels[image] for image in ids])
    return float(((embed_pixels(model, pixels) - embed_pixels(before, pixels)) ** 2).sum(axis=1).mean())


def test_what_is_replayed_stays_near_where_it_was(model: UPPerson) -> None:
    """Pictures of people, whom shifts and shades leave recognisable; noise they do not."""
    pixels = np.stack([HERE.pixels[f"{person}-0"] for person in range(16)])
    known = CaptionedPictures(pixels=pixels, captions=tuple(f"number {n}" for n in range(16)), pids=np.arange(16))
    held = Held(embed_captions(model, known.captions), embed_pixels(model, known.pixels))
    moved = {}
    for hold in (0.0, 300.0):
        learnt = copy.deepcopy(model)
        learn(learnt, PAIRS, HERE.pixels, known, replace(QUICK, hold=hold), held=held)
        captions, pictures = embed_captions(learnt, known.captions), embed_pixels(learnt, known.pixels)
        pairs = ((captions, held.captions), (pictures, held.pictures))
        moved[hold] = [float(((now - before) ** 2).sum(axis=1).mean()) for now, before in pairs]
    assert all(0 < near < far / 5 for near, far in zip(moved[300.0], moved[0.0], strict=True))


def test_a_batch_says_where_its_replayed_pairs_were(model: UPPerson) -> None:
    count = len(REPLAY.pids)
    numbers = np.arange(count, dtype=np.float32)[:, None]
    held = Held(numbers, numbers + 1000)
    dealer = _Batches(model, PAIRS, HERE.pixels, REPLAY, QUICK, np.random.default_rng(0), held=held)
    batch = dealer.next()
    assert batch.held is not None
    chosen = batch.held[0][:, 0].long()
    assert torch.equal(batch.held[1], batch.held[0] + 1000)
    texts = model.backbone.tokenize([REPLAY.captions[index] for index in chosen])
    assert torch.equal(batch.tokens[-len(chosen) :], texts)
    assert _Batches(model, PAIRS, HERE.pixels, REPLAY, QUICK, np.random.default_rng(0)).next().held is None


def test_where_nothing_is_replayed_what_nobody_marked_stays_nearer(model: UPPerson) -> None:
    marked = build(HERE.marks(shown=1)[:16])
    unmarked = sorted(set(HERE.pixels) - set(marked.image_ids))
    assert len(unmarked) > 4
    start, moved = copy.deepcopy(model), {}
    for drift in (0.0, 10.0):
        learnt = copy.deepcopy(model)
        learn(learnt, marked, HERE.pixels, None, replace(QUICK, drift=drift), unmarked=unmarked)
        moved[drift] = drifted(learnt, start, unmarked)
    assert 0 < moved[10.0] < moved[0.0] / 2


def test_replayed_pairs_take_the_place_of_the_drift_term(model: UPPerson) -> None:
    quick = replace(QUICK, min_steps=3, max_steps=3)

    def learnt(drift: float, replay: int) -> dict[str, Tensor]:
        other = copy.deepcopy(model)
        learn(other, PAIRS, HERE.pixels, REPLAY, replace(quick, drift=drift, replay=replay))
        return state(other)

    assert same(learnt(10.0, 10), learnt(0.0, 10))
    assert not same(learnt(10.0, 0), learnt(0.0, 0)), "a set of which nothing is replayed holds nothing back"


def test_in_text_mode_captions_alone_are_held(model: UPPerson) -> None:
    rows = embed_pixels(model, np.stack(list(HERE.pixels.values())))
    frozen = Memory(dict(zip(HERE.pixels, rows, strict=True)))
    before = embed_captions(model, PAIRS.captions)
    moved = {}
    for drift in (0.0, 10.0):
        learnt = copy.deepcopy(model)
        learn(learnt, PAIRS, HERE.pixels, None, replace(QUICK, drift=drift), frozen=frozen)
        moved[drift] = float(((embed_captions(learnt, PAIRS.captions) - before) ** 2).sum(axis=1).mean())
        np.testing.assert_array_equal(embed_pixels(learnt, np.stack(list(HERE.pixels.values()))), rows)
    assert 0 < moved[10.0] < moved[0.0]
