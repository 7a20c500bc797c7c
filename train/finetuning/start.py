"""What a round and an adaptation start from, and how a model is measured on pairs that it knows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from core.backbones import Backbone
from core.model import UPPerson
from core.petl import METHODS, PetlConfig, Tower, TowerPetl
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


def start_model(served: UPPerson, *, mode: Mode = "full", depth: int | None = None) -> UPPerson:
    """A model to train: a copy of the served PETL weights, and fresh ones where there are none and they shall learn.

    In mode "text" it encodes pictures exactly as `served` does. With `depth` only the last `depth` blocks of each tower
    learn, and all below them is as in `served`.
    """
    backbone = served.backbone
    config = served.config or petl_config(backbone)
    theirs = served.config.towers if served.config else ()
    wanted = {*theirs, "text"} if mode == "text" else {"image", "text"}
    both: tuple[Tower, ...] = ("image", "text")
    config = replace(config, towers=tuple(tower for tower in both if tower in wanted))
    blocks = {tower: len(served.blocks(tower)) for tower in both}
    model = UPPerson(backbone, reaching(config, theirs, blocks, depth))
    weights = served.petl_parameters()
    with torch.no_grad():
        for name, parameter in model.petl_parameters().items():
            if name in weights:
                parameter.copy_(weights[name])
            for tower in both:
                if depth is not None and name.startswith(f"{tower}."):
                    parameter.requires_grad_(int(name.split(".")[1]) >= blocks[tower] - depth)
    return model


def reaching(
    config: PetlConfig, present: Collection[str], blocks: Mapping[Tower, int], depth: int | None
) -> PetlConfig:
    """`config` with PETL modules in the last `depth` of so many `blocks` of each tower (None: in all), and where the
    towers `present` have them already."""
    ranged: dict[str, TowerPetl] = {}
    for tower in config.towers:
        sizes = config.of(tower)
        options = {field.name: getattr(sizes, field.name) for field in fields(TowerPetl)}
        first = 0 if depth is None else max(0, blocks[tower] - depth)
        for size, layers in METHODS.values():
            if options[size]:
                begin = (options[layers] or (0, 0))[0] if tower in present else first
                options[layers] = (min(first, begin), blocks[tower]) if min(first, begin) else None
        ranged[tower] = TowerPetl(**options)
    changed = any(ranged[tower] != _plain(config.of(tower)) for tower in config.towers)
    if not changed:
        return config
    return replace(config, image=ranged.get("image"), text=ranged.get("text"))


def _plain(sizes: TowerPetl) -> TowerPetl:
    return TowerPetl(**{field.name: getattr(sizes, field.name) for field in fields(TowerPetl)})


def held_back(known: CaptionedPictures | None) -> tuple[CaptionedPictures | None, CaptionedPictures | None]:
    """Split known pairs into those to replay and those that show forgetting; the second is None for too few pairs."""
    count = 0 if known is None else round(HELD_BACK * len(known.pids))
    if known is None or count < LEAST_HELD_BACK:
        return known, None
    cut = len(known.pids) - count
    return known.part(slice(cut)), known.part(slice(cut, None))


def confusion(model: UPPerson, known: CaptionedPictures, images: NDArray[np.float32] | None = None) -> float:
    """The mean share of a caption's softmax over all pictures that falls on other people.

    Smoother than R@1: it also shows what does not yet change the first result. `images` (N, E): rows of the pictures,
    where they are known already.
    """
    rows = embed_pixels(model, known.pixels) if images is None else images
    scores = embed_captions(model, known.captions) @ rows.T
    weights = torch.from_numpy(scores / TEMPERATURE).softmax(dim=1).numpy()
    return float(weights[known.pids[:, None] != known.pids[None, :]].sum() / len(weights))


def r1(model: UPPerson, data: CaptionedPictures, images: NDArray[np.float32] | None = None) -> float:
    """R@1 on a set. `images` (N, E): rows of its pictures, where they are known already."""
    rows = embed_pixels(model, data.pixels) if images is None else images
    scores = embed_captions(model, data.captions) @ rows.T
    return rank_metrics(scores, data.pids, data.pids).r1
