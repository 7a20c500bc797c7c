"""Rounds in which only the last blocks learn: what they begin with is kept, and all below stays as it was."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.model import UPPerson
from core.petl import PetlConfig, TowerPetl
from tests.coloured import people
from tests.small_clip import small_backbone, stir
from tests.test_round import QUICK, given, known_before
from train.embed import embed_pixels
from train.finetuning.activations import ALTERED, Activations, ToKeep, bytes_of, keep
from train.finetuning.loop import trainable
from train.finetuning.round import fine_tune
from train.finetuning.start import MINI_PETL, reaching, start_model

HERE = people()
PIXELS = np.stack(list(HERE.pixels.values()))


@pytest.fixture
def served() -> UPPerson:
    return stir(UPPerson(small_backbone(), MINI_PETL))


def test_rows_from_what_is_kept_are_those_of_the_pixels(served: UPPerson, tmp_path: Path) -> None:
    kept = Activations(served, 1, tmp_path, 40)
    places = kept.add(PIXELS)
    assert places.tolist() == list(range(32))
    np.testing.assert_allclose(kept.rows(served, places), embed_pixels(served, PIXELS), atol=2e-3)  # fp16
    assert kept.tokens(places[:3]).shape == (3, 13, 128)
    kept.close()


def test_nothing_is_left_on_the_disk(served: UPPerson, tmp_path: Path) -> None:
    kept = Activations(served, 1, tmp_path, 4)
    assert list(tmp_path.iterdir()) == [], "nameless from the start: a kill leaves nothing"
    kept.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_before_anything_is_computed(served: UPPerson, tmp_path: Path) -> None:
    capacity = shutil.disk_usage(tmp_path).free // bytes_of(served.backbone, 1)
    with pytest.raises(ValueError, match="GB on the disk for a while"):
        Activations(served, 1, tmp_path, capacity)
    assert list(tmp_path.iterdir()) == []


def test_only_the_last_block_of_each_tower_wants_a_gradient(served: UPPerson) -> None:
    model = start_model(served, depth=1)
    names = {name for name, p in model.petl_parameters().items() if p.requires_grad}
    assert names == {name for name in model.petl_parameters() if name.split(".")[1] == "1"}
    assert len(trainable(model, ("image", "text"))) == len(names)


@pytest.mark.parametrize(
    ("layers", "present", "depth", "reach"),
    [
        (None, (), 2, (10, 12)),
        (None, ("image", "text"), 2, None),
        ((10, 12), ("image", "text"), 4, (8, 12)),
        ((10, 12), ("image", "text"), 1, (10, 12)),
        ((10, 12), ("image", "text"), None, None),
        (None, (), None, None),
    ],
)
def test_modules_reach_as_deep_as_they_shall_learn(
    layers: tuple[int, int] | None, present: tuple[str, ...], depth: int | None, reach: tuple[int, int] | None
) -> None:
    config = PetlConfig(prefix_layers=layers, lora_layers=layers, adapter_layers=layers)
    found = reaching(config, present, {"image": 12, "text": 12}, depth)
    assert all(
        (found.of(tower).prefix_layers, found.of(tower).lora_layers, found.of(tower).adapter_layers) == (reach,) * 3
        for tower in ("image", "text")
    )
    if layers == reach:
        assert found is config, "settings that fit stay the very same"


def test_a_method_left_out_stays_out() -> None:
    config = PetlConfig(image=TowerPetl(lora_rank=0))
    found = reaching(config, (), {"image": 12, "text": 12}, 2)
    assert found.of("image").lora_layers is None
    assert found.of("text").lora_layers == (10, 12)


def test_a_round_on_the_last_block_leaves_all_below_as_it_was(tmp_path: Path) -> None:
    facts = {"known": known_before(140), "base": known_before(40)}
    here = replace(given(small_backbone(), **facts), depth=1, scratch=tmp_path)
    outcome = fine_tune(here)
    model = outcome.model
    assert model is not None
    before = here.served.petl_parameters()
    changed = {name for name, p in model.petl_parameters().items() if not torch.equal(p, before.get(name, p + 1))}
    assert {name.split(".")[1] for name in changed} == {"1"}
    assert {name.split(".")[0] for name in changed} == {"image", "text"}
    assert "preparing pictures" in outcome.seconds
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_serves_replay_watching_and_base(served: UPPerson, tmp_path: Path) -> None:
    here = given(small_backbone(), known=known_before(140), base=known_before(40))
    ids = list(here.pixels)
    wanted = ToKeep(here.pixels, ids, ids[:5], here.known, here.base)
    kept = keep(served, 1, tmp_path, wanted, QUICK.sampling)
    assert kept.activations.count == wanted.passes()
    assert {len(kept.places[image]) for image in ids[:5]} == {1 + ALTERED}
    assert {len(kept.places[image]) for image in ids[5:]} == {1}
    replay = kept.replay(served)
    np.testing.assert_allclose(replay.pictures, embed_pixels(served, replay.pairs.pixels), atol=2e-3)
    assert replay.places is not None
    assert len(replay.places) == len(replay.pairs.pids) == 119
    assert len(kept.watched) == 21
    assert here.base is not None
    np.testing.assert_allclose(kept.rows(served, kept.base), embed_pixels(served, here.base.pixels), atol=2e-3)
    kept.activations.close()
