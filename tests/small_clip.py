"""A CLIP small enough for tests: open_clip's own class, random weights that are strong enough to distinguish inputs."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from open_clip.model import CLIP

from core.backbones import Backbone, build_clip, freeze
from core.model import UPPerson
from core.petl import PetlConfig, TowerPetl

CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": [48, 16], "patch_size": 8, "width": 128, "layers": 2, "head_width": 64},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}

VARIANTS: tuple[PetlConfig | None, ...] = (
    PetlConfig(prefix_length=0, lora_rank=4, adapter_reduction=0),
    PetlConfig(lora_rank=0, adapter_reduction=0),
    PetlConfig(prefix_length=0, lora_rank=0),
    PetlConfig(prefix_gain=None, adapter="sequential", lora_layers=(1, 2)),
    PetlConfig(learn_gain=False, towers=("text",)),
    PetlConfig(image=TowerPetl(prefix_layers=(0, 1), adapter_layers=(1, 2))),
    None,
)
"""Each PETL method alone and left out, and None for no PETL modules: what merged models are compared on."""


def small_clip(config: dict[str, Any] = CONFIG, *, seed: int = 0) -> CLIP:
    """The model of `config`; its attention looks at some tokens more than at others, its biases are not 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = build_clip(config)
        with torch.no_grad():
            for name, parameter in clip.named_parameters():
                if name.endswith("in_proj_weight"):
                    parameter.normal_(std=1.5 * parameter.shape[1] ** -0.5)
                elif name.endswith("bias"):
                    parameter.normal_(std=0.1)
                elif name.endswith("token_embedding.weight"):
                    parameter.normal_(std=0.5)
    return clip


def small_backbone(name: str = "small", *, seed: int = 0) -> Backbone:
    """A frozen Backbone around `small_clip`, with CLIP's own tokenizer."""
    height, width = CONFIG["vision_cfg"]["image_size"]
    return Backbone(name, freeze(small_clip(seed=seed)), open_clip.SimpleTokenizer(), (height, width))


def stir(model: UPPerson, *, seed: int = 1) -> UPPerson:
    """Move every PETL parameter away from its start, so that none is without effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.petl_parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model
