"""What a round and an adaptation start from, and how a model is measured on pairs that it knows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from core.backbones import Backbone
from core.model import UPPerson
from core.petl import PetlConfig, Tower
from train.captioned_images import CaptionedPictures
from train.embed import embed_captions, embed_pixels
from train.finetuning.config import Mode
from train.losses import TEMPERATURE
from train.metrics import rank_metrics

MINI_PETL = PetlConfig(prefix_length=4, lora_rank=8, adapter_reduction=8)
"""PETL sizes for `mini`, whose blocks are 192 wide; others take the paper's CUHK-PEDES sizes."""

HELD_BACK, LEAST_HELD_BACK = 0.15, 20
"""This share of the known pairs is not replayed: it shows how much a model forgets. Fewer pairs than the second number
could not show it, and then all are replayed."""


def petl_config(backbone: Backbone) -> PetlConfig:
    """The PETL sizes that a backbone starts with."""
    return MINI_PETL if backbone.name == "mini" else PetlConfig()


def start_model(served: UPPerson, *, mode: Mode = "full") -> UPPerson:
    """A model to train: a copy of the served PETL weights, and fresh ones in towers that have none and shall learn.

    In mode "text" it encodes pictures exactly as `served` does.
    """
    backbone = served.backbone
    config = served.config or petl_config(backbone)
    theirs = served.config.towers if served.config else ()
    wanted = {*theirs, "text"} if mode == "text" else {"image", "text"}
    both: tuple[Tower, ...] = ("image", "text")
    model = UPPerson(backbone, replace(config, towers=tuple(tower for tower in both if tower in wanted)))
    weights = served.petl_parameters()
    with torch.no_grad():
        for name, parameter in model.petl_parameters().items():
            if name in weights:
                parameter.copy_(weights[name])
    return model


def held_back(known: CaptionedPictures | None) -> tuple[CaptionedPictures | None, CaptionedPictures | None]:
    """Split known pairs into those to replay and those that show forgetting; the second is None for too few pairs."""
    count = 0 if known is None else round(HELD_BACK * len(known.pids))
    if known is None or count < LEAST_HELD_BACK:
        return known, None
    cut = len(known.pids) - count
    return known.part(slice(cut)), known.part(slice(cut, None))


def confusion(model: UPPerson, known: CaptionedPictures) -> float:
    """The mean share of a caption's softmax over all pictures that falls on other people.

    Smoother than R@1: it also shows what does not yet change the first result.
    """
    scores = embed_captions(model, known.captions) @ embed_pixels(model, known.pixels).T
    weights = torch.from_numpy(scores / TEMPERATURE).softmax(dim=1).numpy()
    return float(weights[known.pids[:, None] != known.pids[None, :]].sum() / len(weights))


def r1(model: UPPerson, data: CaptionedPictures, images: NDArray[np.float32] | None = None) -> float:
    """R@1 on a set. `images` (N, E): rows of its pictures, where they are known already."""
    rows = embed_pixels(model, data.pixels) if images is None else images
    scores = embed_captions(model, data.captions) @ rows.T
    return rank_metrics(scores, data.pids, data.pids).r1
