"""A split is judged as the protocol says, in both directions, by any kind of model."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import PetlConfig, UPPerson, save_petl
from core.backbones import Backbone
from core.encoder import Encoder
from core.errors import PictureError
from tests.layouts import lay_out
from tests.small_clip import small_backbone, stir
from train.datasets import Counts, Split, read_data_set
from train.evaluate import evaluate, load_model
from train.metrics import rank_metrics


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


def test_plain_version_and_released_models_are_loaded(mini: Backbone, tmp_path: Path) -> None:
    model = stir(UPPerson(mini, PetlConfig(prefix_length=2, lora_rank=2, adapter_reduction=16)))
    save_petl(model, tmp_path)
    loaded = load_model("ViT-B-16", version=tmp_path)  # the version says what it stands on
    assert loaded.backbone.name == "mini"
    assert loaded.config == model.config
    assert load_model("mini").config is None
    with pytest.raises(ValueError, match="not both"):
        load_model("mini", version=tmp_path, released=tmp_path)
