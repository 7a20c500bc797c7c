"""A split is judged as the protocol says, in both directions, by any kind of model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import pytest
from numpy.typing import NDArray
from PIL import Image

from core import PetlConfig, UPPerson, save_petl, save_released
from core.backbones import Backbone, freeze
from core.core_errors import PictureError
from core.encoder import Encoder
from tests.layouts import lay_out
from tests.small_clip import CONFIG, small_backbone, small_clip, stir
from train.datasets import Counts, Split, read_data_set
from train.metrics import rank_metrics
from train.supervised.evaluate import evaluate, load_model


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return read_data_set("cuhk-pedes", lay_out(tmp_path, "cuhk-pedes"))["train"]


def test_both_directions_are_those_of_all_scores(split: Split) -> None:
    model = stir(UPPerson(small_backbone(), PetlConfig(prefix_length=2, lora_rank=2)))
    report = evaluate(model, split)
    encoder = Encoder(model, batch_size=128)
    scores = encoder.encode_texts(split.captions) @ encoder.encode_images(split.pictures).T
    assert report.text_to_image == rank_metrics(scores, split.caption_pids, split.pids)
    assert report.image_to_text == rank_metrics(scores.T, split.pids, split.caption_pids)
    assert (report.text_to_image.queries, report.image_to_text.queries) == (32, 16)
    assert report.counts == Counts(8, 16, 32)


def test_a_report_is_percent_to_read_and_fractions_as_json(split: Split) -> None:
    report = evaluate(UPPerson(small_backbone()), split)
    r1 = report.text_to_image.r1
    assert report.to_json()["text_to_image"]["r1"] == r1
    lines = str(report).splitlines()
    assert lines[0].split() == ["R@1", "R@5", "R@10", "mAP", "mINP", "queries"]
    assert lines[1].split()[:4] == ["text", "to", "image", f"{100 * r1:.2f}"]
    assert lines[2].split()[-1] == "16"


def test_a_picture_that_broke_is_named(split: Split) -> None:
    assert isinstance(split.pictures, tuple)
    split.pictures[3].write_bytes(b"no picture")
    with pytest.raises(PictureError, match=rf"^{split.pictures[3].name}: expected a picture"):
        evaluate(UPPerson(small_backbone()), split)


def rows_of(model: UPPerson) -> list[NDArray[np.float32]]:
    pixels = np.random.default_rng(0).integers(0, 256, (384, 128, 3), dtype=np.uint8)
    encoder = Encoder(model)
    return [encoder.encode_images([Image.fromarray(pixels)]), encoder.encode_texts(["a man in red"])]


def test_plain_version_and_released_models_are_loaded(mini: Backbone, tmp_path: Path) -> None:
    model = stir(UPPerson(mini, PetlConfig(prefix_length=2, lora_rank=2, adapter_reduction=16)))
    save_petl(model, tmp_path)
    loaded = load_model("ViT-B-16", version=tmp_path)  # the version says what it stands on
    assert loaded.backbone.name == "mini"
    assert loaded.config == model.config
    assert load_model("mini").config is None
    config = CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"image_size": [384, 128], "patch_size": 64}}
    small = Backbone("small", freeze(small_clip(config)), open_clip.SimpleTokenizer(), (384, 128))
    released = stir(UPPerson(small, PetlConfig(prefix_length=2, lora_rank=2)))
    save_released(released, tmp_path / "best.pth")
    again = load_model("mini", released=tmp_path / "best.pth")
    for one, other in zip(rows_of(released), rows_of(again), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    with pytest.raises(ValueError, match="not both"):
        load_model("mini", version=tmp_path, released=tmp_path)
