"""How long a round trains: chosen by held-out people of the training half, the longest that is not clearly worse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from core.model import UPPerson
from core.petl import PetlConfig
from tests.coloured import Mark, people
from tests.learn_config import altered, learning
from tests.small_clip import small_backbone
from train.finetuning.controls import HELD_OUT, LEAST, LENGTHS, best_length, hold_out
from train.finetuning.gate import GateConfig
from train.finetuning.loop import Learnt, learn
from train.finetuning.pairs import Pairs, build
from train.finetuning.round import Round, fine_tune

QUICK = learning(8, lr=3e-3, queries=8, hits=1, misses=3, replay=0, hidden_words=0.0, occluded=0.0)
HERE = people()
PAIRS = build(HERE.marks())


def marks_of(count: int) -> list[Mark]:
    """A caption for each of so many people, with a hit of its own and as misses the next person's hit and nobody's."""
    found = []
    for person in range(count):
        found.append(Mark(f"caption {person}", f"{person}-0", "hit", 1, 0.6))
        found.append(Mark(f"caption {person}", f"{(person + 1) % count}-0", "miss", 2, 0.4))
        found.append(Mark(f"caption {person}", f"nobody-{person}", "miss", 3, 0.3))
    return found


def test_held_out_people_are_trained_on_in_no_way() -> None:
    pairs = build(marks_of(HELD_OUT * LEAST))
    training, held = hold_out(pairs)
    assert held is not None
    assert len(set(held.groups)) == LEAST
    assert set(training.captions).isdisjoint(held.captions)
    assert len(training.captions) + len(held.captions) == len(pairs.captions)
    hits = {image for image, hit in zip(held.image_ids, (held.judged > 0).any(axis=0), strict=True) if hit}
    judged = {image for image, said in zip(training.image_ids, (training.judged != 0).any(axis=0), strict=True) if said}
    assert len(hits) == LEAST
    assert hits.isdisjoint(judged)


def test_too_few_people_choose_nothing() -> None:
    pairs = build(marks_of(HELD_OUT * LEAST - 1))
    training, held = hold_out(pairs)
    assert held is None
    assert training is pairs


def test_another_seed_holds_out_other_people() -> None:
    pairs = build(marks_of(2 * HELD_OUT * LEAST))
    first, again, other = (hold_out(pairs, seed=seed)[1] for seed in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.captions == again.captions != other.captions


def test_a_shorter_training_wins_only_where_it_is_clearly_better() -> None:
    captions = 20
    noise = np.random.default_rng(0).normal(0, 0.1, (len(LENGTHS), captions))
    assert best_length(np.zeros((len(LENGTHS), captions))) == len(LENGTHS) - 1
    assert best_length(noise / 100 + np.array([[0.0], [0.5], [0.1]])) == 1
    assert best_length(noise / 100 + np.array([[0.6], [0.5], [0.1]])) == 0
    assert best_length(noise + np.array([[0.0], [0.01], [0.0]])) == len(LENGTHS) - 1


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_people_without_a_comparison_say_nothing(seed: int, missing: float) -> None:
    rng = np.random.default_rng(seed)
    found = rng.random((len(LENGTHS), 30)) + np.array([[0.0], [0.9], [0.0]])
    found[:, rng.random(30) < missing] = np.nan
    compared = found[:, ~np.isnan(found[0])]
    assert best_length(found) == (1 if compared.shape[1] >= LEAST else len(LENGTHS) - 1)


def test_without_a_trend_all_steps_are_taken_as_a_rule() -> None:
    rng = np.random.default_rng(0)
    walks = rng.normal(0, 0.1, (400, len(LENGTHS), 8)).cumsum(axis=1)
    assert np.mean([best_length(walk) < len(LENGTHS) - 1 for walk in walks]) < 0.12


@pytest.mark.parametrize(("place", "length"), list(enumerate(LENGTHS)))
def test_the_weights_of_the_chosen_length_are_kept(place: int, length: float) -> None:
    model, seen = UPPerson(small_backbone(), PetlConfig(prefix_length=2, lora_rank=4, adapter_reduction=4)), []

    def state() -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in model.petl_parameters().items()}

    def held_out(looked: UPPerson) -> NDArray[np.float64]:
        assert looked is model
        seen.append(state())
        return np.linspace(0.0, 0.001, 10) + (len(seen) - 1 == place)

    found = learn(model, PAIRS, HERE.pixels, None, QUICK, held_out=held_out)
    assert found == Learnt(QUICK.optimisation.mix, length)
    assert len(seen) == len(LENGTHS)
    assert all(torch.equal(value, seen[place][name]) for name, value in state().items())
    assert not all(torch.equal(value, seen[place - 1][name]) for name, value in state().items())


def test_looking_does_not_change_what_is_learnt() -> None:
    petl = PetlConfig(prefix_length=2, lora_rank=4, adapter_reduction=4)
    looked, other = UPPerson(small_backbone(), petl), UPPerson(small_backbone(), petl)
    learn(looked, PAIRS, HERE.pixels, None, QUICK, held_out=lambda _: np.zeros(10))
    learn(other, PAIRS, HERE.pixels, None, QUICK)
    weights = other.petl_parameters()
    assert all(torch.equal(value, weights[name]) for name, value in looked.petl_parameters().items())


def test_a_length_is_a_share_of_the_steps() -> None:
    model, steps = UPPerson(small_backbone(), PetlConfig(prefix_length=2, lora_rank=4, adapter_reduction=4)), []
    learn(model, PAIRS, HERE.pixels, None, altered(QUICK, max_steps=8, min_steps=8), length=0.5, note=steps.append)
    assert [step.number for step in steps] == [1, 2, 3, 4]
    assert {step.steps for step in steps} == {8}, "the rate falls as slowly as in all of them"


def test_control_and_candidate_stop_where_the_folds_did(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, Learnt, dict[str, Any]]] = []

    def noted(model: UPPerson, pairs: Pairs, *args: Any, **options: Any) -> Learnt:
        found = learn(model, pairs, *args, **options)
        calls.append((args[2], found, options))
        return found

    monkeypatch.setattr("train.finetuning.round.learn", noted)
    monkeypatch.setattr("train.finetuning.loop.best_length", lambda _: 0)
    count, rng = 2 * HELD_OUT * LEAST, np.random.default_rng(0)
    marks = marks_of(count)
    pixels = {mark.image_id: rng.integers(0, 256, (48, 16, 3), dtype=np.uint8) for mark in marks}
    served = UPPerson(small_backbone(), PetlConfig(prefix_length=2, lora_rank=4, adapter_reduction=4))
    config = altered(QUICK, max_steps=4, min_steps=4)
    gate = GateConfig(resamples=200)
    outcome = fine_tune(Round(served, marks, pixels, sorted(pixels), learning=config, gate=gate))

    assert outcome.model is not None, outcome.verdict.reason
    fold, control, other, other_control, candidate = calls
    for trained, shuffled in ((fold, control), (other, other_control)):
        assert trained[1].length == LENGTHS[0]
        assert trained[2]["held_out"] is not None
        assert shuffled[2]["held_out"] is None
        assert shuffled[2]["length"] == LENGTHS[0]
        assert shuffled[0] == trained[0] == config.of_fold()
    assert candidate[2]["length"] == outcome.length == LENGTHS[0]
    assert candidate[0] == config.of_fold(), "no more passes than were found good"
