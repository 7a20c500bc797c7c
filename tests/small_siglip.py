"""A SigLIP small enough for tests: open_clip's and timm's classes, random weights, a tokenizer that needs no file."""

from __future__ import annotations

import re
from typing import Any
from zlib import crc32

import torch
from open_clip.model import CustomTextCLIP
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer, _create_vision_transformer
from torch import Tensor

from core.backbones import Backbone, build_clip, freeze

CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 32,
        "timm_model_name": "vit_small_siglip_of_tests",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 512,
        "hf_tokenizer_name": "tests/small-siglip",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 32,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
        "act_kwargs": {"approximate": "tanh"},
    },
}
"""As open_clip's `ViT-B-16-SigLIP2-256`, with fewer and narrower blocks."""
SIZE = (48, 16)
PAD, END = 0, 1


@register_model  # timm's classes as its own `vit_base_patch16_siglip_256` builds them
def vit_small_siglip_of_tests(pretrained: bool = False, **more: Any) -> VisionTransformer:
    """32 x 32 pixels, patches of 8, two blocks 64 wide."""
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}
    known = {"pretrained_cfg": {"input_size": (3, 32, 32), "num_classes": 0}}
    given = sizes | {"class_token": False, "global_pool": "map"} | more | known
    return _create_vision_transformer("vit_small_siglip_of_tests", pretrained=pretrained, **given)


def small_siglip(*, seed: int = 0) -> CustomTextCLIP:
    """Weights strong enough to distinguish inputs, at the size of its timm model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = build_clip(CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"image_size": SIZE}})
        with torch.no_grad():
            for name, parameter in clip.named_parameters():
                if name.endswith(("in_proj_weight", "qkv.weight", "q.weight", "kv.weight")):
                    parameter.normal_(std=1.5 * parameter.shape[1] ** -0.5)
                elif name.endswith(("fc1.weight", "fc2.weight", "proj.weight", "projection.weight")):
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
                elif name.endswith("bias"):
                    parameter.normal_(std=0.1)
                elif name.endswith(("token_embedding.weight", "pos_embed", "latent")):
                    parameter.normal_(std=0.5)
    return clip


def tokenize(captions: list[str]) -> Tensor:
    """Token ids (B, 16) of captions, laid out as SigLIP's: no start, the end after the words, then padding."""
    rows = torch.full((len(captions), 16), PAD)
    for row, caption in zip(rows, captions, strict=True):
        words = [3 + crc32(word.encode()) % 500 for word in re.findall(r"\w+", caption.lower())][:15]
        row[: len(words) + 1] = torch.tensor([*words, END])
    return rows


def small_siglip_backbone(name: str = "small-siglip", *, seed: int = 0) -> Backbone:
    """A frozen Backbone around `small_siglip`, its pictures 48 x 16."""
    clip = small_siglip(seed=seed)
    clip.visual.set_input_size(SIZE)
    return Backbone(name, freeze(clip), tokenize, SIZE)
