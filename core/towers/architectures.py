"""Names of backbones: open_clip's architectures that the PETL modules fit, and the weights that each has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

import open_clip

from core.core_errors import BackboneError

_DEFAULT_TAGS = ("openai", "webli")
"""Weights of a name without a tag: OpenAI's, or those with which Google published SigLIP."""

# What two plain CLIP transformers, and a SigLIP, say in open_clip's config; anything else is another kind of tower.
_PLAIN = {
    "": {"embed_dim", "quick_gelu"},
    "vision_cfg": {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio", "ls_init_value"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "ls_init_value"},
}
_SIGLIP = {
    "": {"embed_dim", "init_logit_bias", "custom_text", "quick_gelu"},
    "vision_cfg": {"image_size", "timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj"},
    "text_cfg": {
        "context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "no_causal_mask", "pool_type",
        "proj_type", "proj_bias", "norm_kwargs", "act_kwargs", "hf_tokenizer_name", "tokenizer_kwargs",
    },
}  # fmt: skip


@cache
def backbone_names() -> tuple[str, ...]:
    """Return the names `load_backbone` takes; `NAME.TAG` chooses other weights than OpenAI's, e.g. of LAION."""
    names = (name for name in open_clip.list_models() if not name.endswith("-quickgelu"))
    return ("mini", *(name for name in names if not _peculiar(open_clip.get_model_config(name))))


def _peculiar(config: dict[str, Any]) -> list[str]:
    """Return what keeps a config from being two plain CLIP transformers or a SigLIP, by open_clip's names."""
    vision = config["vision_cfg"]
    siglip = "siglip" in vision.get("timm_model_name", "") and vision.get("timm_pool") == "map"
    form = _SIGLIP if siglip else _PLAIN
    found = set(config) - {*form, *form[""]}
    for tower in ("vision_cfg", "text_cfg"):
        found |= set(config[tower]) - form[tower]
    if isinstance(vision.get("layers"), list):
        found.add("ResNet layers")
    return sorted(found)


@dataclass(frozen=True, slots=True)
class ClipName:
    """The parts of a backbone's name: open_clip's architecture, whose weights, and their activation.

    None: no weights, so they have to come from a file.
    """

    architecture: str
    tag: str | None
    quick_gelu: bool

    @classmethod
    def parse(cls, name: str) -> ClipName:
        """Parse a name: `ViT-B-32` is OpenAI's, `ViT-B-32.laion2b_s34b_b79k` LAION's. Raises BackboneError."""
        architecture, _, tag = name.partition(".")
        config = open_clip.get_model_config(architecture) if re.fullmatch(r"[\w-]+", architecture) else None
        if config is not None and (peculiar := _peculiar(config)):
            raise BackboneError(
                f"backbone {name!r} is not a plain CLIP ViT with CLIP's text tower, nor a SigLIP "
                f"({', '.join(peculiar)}), which the PETL modules are made for: "
                f"choose one of {', '.join(backbone_names())}"
            )
        if architecture not in backbone_names():
            raise BackboneError(f"unknown backbone {name!r}: choose one of {', '.join(backbone_names())}")
        tags = sorted(
            {t for form in ("", "-quickgelu") for t in open_clip.list_pretrained_tags_by_model(architecture + form)}
        )
        if "." in name and tag not in tags:
            raise BackboneError(
                f"there are no weights {tag!r} of {architecture}: choose one of {', '.join(tags) or 'none'}"
            )
        chosen = tag or next((default for default in _DEFAULT_TAGS if default in tags), None)
        if chosen is None:
            return cls(architecture, None, bool(config and config.get("quick_gelu")))
        return cls(architecture, chosen, bool(pretrained_facts(architecture, chosen).get("quick_gelu")))


def pretrained_facts(architecture: str, tag: str) -> dict[str, Any]:
    """Return what open_clip knows of these weights; some are listed only for the architecture's QuickGELU form."""
    found = open_clip.get_pretrained_cfg(architecture, tag)
    return found or open_clip.get_pretrained_cfg(f"{architecture}-quickgelu", tag)
