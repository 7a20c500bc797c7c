"""What a round starts from: copies of what serves, pairs held back, and measures on known pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.backbones import Backbone
from core.model import UPPerson
from core.petl import PetlConfig
from tests.coloured import known_before, people
from tests.small_clip import small_backbone, stir
from train import pedestrians
from train.embed import embed_captions, embed_pixels
from train.finetuning.start import MINI_PETL, confusion, held_back, petl_config, r1, start_model
from train.metrics import rank_metrics

PETL = PetlConfig(prefix_length=2, lora_rank=4, adapter_reduction=4)
HERE = people()


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone()


def test_training_starts_from_the_served_weights(backbone: Backbone) -> None:
    served = stir(UPPerson(backbone, PETL), seed=4)
    started = start_model(served)
    assert started is not served
    assert all(torch.equal(v, served.petl_parameters()[n]) for n, v in started.petl_parameters().items())
    with torch.no_grad():
        next(iter(started.petl_parameters().values())).add_(1.0)
    assert not all(torch.equal(v, served.petl_parameters()[n]) for n, v in started.petl_parameters().items())


def test_a_plain_backbone_starts_with_fresh_weights_of_its_size(backbone: Backbone) -> None:
    assert start_model(UPPerson(backbone)).config == PetlConfig() == petl_config(backbone)
    assert petl_config(replace(backbone, name="mini")) == MINI_PETL


def test_in_text_mode_the_image_tower_stays_as_it_serves(backbone: Backbone) -> None:
    pixels = np.stack(list(HERE.pixels.values()))
    both = stir(UPPerson(backbone, PETL), seed=4)
    text = stir(UPPerson(backbone, replace(PETL, towers=("text",))), seed=4)
    for served, towers in ((UPPerson(backbone), ("text",)), (text, ("text",)), (both, ("image", "text"))):
        started = start_model(served, mode="text")
        assert started.config is not None
        assert started.config.towers == towers
        np.testing.assert_array_equal(embed_pixels(started, pixels), embed_pixels(served, pixels))


def test_a_tower_without_weights_gets_fresh_ones_beside_the_served_ones(backbone: Backbone) -> None:
    former = stir(UPPerson(backbone, replace(PETL, towers=("text",))))
    started = start_model(former)
    assert started.config == PETL
    weights = former.petl_parameters()
    assert all(torch.equal(v, weights[n]) for n, v in started.petl_parameters().items() if n.startswith("text."))


def test_fresh_petl_costs_at_most_one_point(mini: Backbone, cache: Path) -> None:
    """Attached before any training, on the test set that every figure is reported on."""
    data = pedestrians.load(pedestrians.takes("studio", "test", 500, 2), mini.image_size, cache=cache)
    plain = UPPerson(mini)
    assert r1(start_model(plain), data) >= r1(plain, data) - 0.01


def test_r1_is_the_share_of_captions_whose_first_result_fits(backbone: Backbone) -> None:
    model, data = UPPerson(backbone), known_before(20)
    images = embed_pixels(model, data.pixels)
    scores = embed_captions(model, data.captions) @ images.T
    assert r1(model, data) == rank_metrics(scores, data.pids, data.pids).r1
    assert r1(model, data) == pytest.approx((scores.argmax(axis=1) == np.arange(20)).mean())
    assert r1(model, data, images) == r1(model, data)
    turned = images[::-1].copy()
    assert r1(model, data, turned) == rank_metrics(scores[:, ::-1].copy(), data.pids, data.pids).r1


def test_embeddings_are_unit_rows_whatever_the_batch(backbone: Backbone) -> None:
    model = stir(UPPerson(backbone, PETL))
    pixels = np.stack(list(HERE.pixels.values()))
    for embed, inputs in ((embed_pixels, pixels), (embed_captions, HERE.captions)):
        whole = embed(model, inputs)  # type: ignore[operator]
        np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1.0, atol=1e-5)
        np.testing.assert_allclose(embed(model, inputs, batch=3), whole, atol=1e-5)  # type: ignore[operator]


def test_some_known_pairs_are_held_back_unless_they_are_too_few() -> None:
    known = known_before(140)
    used, watched = held_back(known)
    assert used is not None
    assert watched is not None
    assert used.captions + watched.captions == known.captions
    assert not set(used.pids.tolist()) & set(watched.pids.tolist())
    assert len(watched.pids) == len(watched.pixels) == 21
    few = known_before(60)
    assert held_back(few) == (few, None)
    assert held_back(None) == (None, None)


def test_confusion_is_the_share_of_the_softmax_that_falls_on_other_people(backbone: Backbone) -> None:
    known = replace(known_before(3), pids=np.array([1, 2, 1]))
    model = UPPerson(backbone)
    scores = embed_captions(model, known.captions) @ embed_pixels(model, known.pixels).T
    weights = np.exp(scores.astype(np.float64) / 0.02)
    weights /= weights.sum(axis=1, keepdims=True)
    others = weights[0, 1] + weights[1, 0] + weights[1, 2] + weights[2, 1]  # the first and the third are one person
    assert confusion(model, known) == pytest.approx(others / 3, rel=1e-4)
