"""Backbones by name: the bundled `mini`, and CLIP and SigLIP models that open_clip loads."""

from __future__ import annotations

import hashlib
import json
import math
import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP, CustomTextCLIP, resize_pos_embed
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.core_errors import BackboneError
from core.device import LARGE, faults_of
from core.state_dicts import faults, frozen_part, listed, read_state
from core.towers.architectures import ClipName, backbone_names, pretrained_facts
from core.towers.siglip import is_siglip, siglip_tokenizer

__all__ = [
    "Backbone", "ClipName", "at_person_size", "backbone_names", "build_clip", "clip_config", "device_of", "freeze",
    "load_backbone", "load_mini", "save_mini",
]  # fmt: skip

WEIGHTS = Path(__file__).parent / "weights"
PERSON_SIZE = (384, 128)
"""Height x width of a person crop for the CLIP backbones (paper, section IV)."""

# In OpenAI's archives, beside the weights: sizes, and a mask that the model makes itself.
_NO_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")  # letters and digits; hyphens and apostrophes inside


@dataclass(frozen=True, slots=True, eq=False)
class Backbone:
    """A frozen CLIP or SigLIP and what belongs to it.

    `image_size` is (H, W) in pixels, `mean` and `std` are per RGB channel for values in [0, 1]. `known_words`
    and `known_tokens` say what a small vocabulary has learnt (None: all of CLIP's); words outside share one
    neutral embedding.
    """

    name: str
    clip: CLIP | CustomTextCLIP
    tokenize: Callable[[list[str]], Tensor]
    image_size: tuple[int, int]
    mean: tuple[float, float, float] = open_clip.OPENAI_DATASET_MEAN
    std: tuple[float, float, float] = open_clip.OPENAI_DATASET_STD
    known_words: frozenset[str] | None = None
    known_tokens: Tensor | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def embed_dim(self) -> int:
        """E, the width of an embedding."""
        return int(self.clip.text.output_dim if self.siglip else self.clip.text_projection.shape[1])

    @property
    def siglip(self) -> bool:
        """Whether the towers are SigLIP's, not CLIP's (`core.towers.siglip`)."""
        return is_siglip(self.clip)

    @property
    def image_tokens(self) -> tuple[int, int]:
        """T and D: how many tokens a picture is for a block of the image tower, and their width."""
        visual = self.clip.visual
        tokens, width = (visual.trunk.pos_embed[0] if self.siglip else visual.positional_embedding).shape
        return int(tokens), int(width)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        height, width = (self.clip.visual.trunk.patch_embed if self.siglip else self.clip.visual).patch_size
        return int(height), int(width)

    @property
    def large(self) -> bool:
        """Whether speed and memory choose how it is computed (`core.device.LARGE`)."""
        return self.image_tokens[1] >= LARGE

    def to(self, device: torch.device) -> Backbone:
        """Move the frozen model to a device and return the same backbone. Raises DeviceError."""
        with faults_of(device):
            self.clip.to(device)
        return self

    def fingerprint(self) -> str:
        """Return 16 hex digits of the SHA-256 of the weights, which PETL weights and vectors belong to."""
        digest = hashlib.sha256()
        for name, value in sorted(self.clip.state_dict().items()):
            digest.update(f"{name} {tuple(value.shape)} ".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    def unknown_words(self, caption: str) -> tuple[str, ...]:
        """Return the words of `caption` that this backbone never learnt, in order, each once."""
        if self.known_words is None:
            return ()
        words = (word.lower() for word in _WORD.findall(caption.replace("’", "'")))
        return tuple(dict.fromkeys(word for word in words if not self._knows(word)))

    def words_read(self, caption: str) -> int | None:
        """Return how many words of `caption` fit into the context, the last perhaps in part; None if all do."""
        words = caption.split()

        def read(number: int) -> Tensor:
            return self.tokenize([" ".join(words[:number])])

        whole = read(len(words))
        if not words or not torch.equal(read(len(words) - 1), whole):
            return None
        return bisect_left(range(len(words)), True, key=lambda number: torch.equal(read(number), whole))

    def _knows(self, word: str) -> bool:
        assert self.known_words is not None
        word = word.removesuffix("'s")  # a token of its own, and a known one
        return word in self.known_words or all(part in self.known_words for part in re.split(r"['-]", word))


def load_backbone(name: str, *, weights: Path | None = None) -> Backbone:
    """Load the frozen backbone `name`, or that architecture with the weights in the file `weights`.

    `mini` comes with the package. Others are fetched from the Hugging Face Hub once and then read from its
    cache. A file is open_clip's or OpenAI's (`core.state_dicts`), and runs with the activation that belongs to
    `name`: QuickGELU for OpenAI's weights. The tokenizer of a SigLIP is fetched as well, and needs the package
    transformers. Raises BackboneError when the name is unknown or the weights cannot be had.
    """
    if name == "mini":
        return load_mini(weights or WEIGHTS / "mini.safetensors")
    wanted = ClipName.parse(name)
    siglip = clip_config(name).get("custom_text", False)
    tokenize = siglip_tokenizer(name, wanted.architecture) if siglip else None  # first: it is small
    if weights is not None:
        clip = _from_file(name, wanted, weights)
    elif wanted.tag is None:
        tags = open_clip.list_pretrained_tags_by_model(wanted.architecture)
        raise BackboneError(
            f"there are no weights of OpenAI's for {name}: "
            f"{'name others as ' + ', '.join(f'{name}.{tag}' for tag in tags) + ', or ' if tags else ''}"
            "give a file by --weights"
        )
    else:
        clip = _from_hub(name, wanted)
    facts = pretrained_facts(wanted.architecture, wanted.tag) if wanted.tag else {}
    mean, std = facts.get("mean", open_clip.OPENAI_DATASET_MEAN), facts.get("std", open_clip.OPENAI_DATASET_STD)
    tokenize = tokenize or open_clip.SimpleTokenizer(context_length=clip.context_length)
    return Backbone(name, freeze(at_person_size(clip)), tokenize, PERSON_SIZE, tuple(mean), tuple(std))


def _from_hub(name: str, wanted: ClipName) -> CLIP | CustomTextCLIP:
    form = wanted.architecture
    if wanted.tag not in open_clip.list_pretrained_tags_by_model(form):
        form += "-quickgelu"
    try:
        clip = open_clip.create_model(
            form,
            pretrained=wanted.tag,
            force_quick_gelu=wanted.quick_gelu,
            force_image_size=PERSON_SIZE,
            weights_only=True,
            require_pretrained=True,
        )
        _check_finite(clip)
    except Exception as error:
        raise BackboneError(
            f"the weights of backbone {name!r} could not be read from the Hugging Face Hub or its cache "
            f"({_first_line(error)}). Start once with a network connection so that they are cached, put them into the "
            "Hub cache (HF_HOME) by hand, give a file by --weights, or use `--backbone mini`, which needs no download."
        ) from error
    return clip


def at_person_size(clip: CLIP | CustomTextCLIP) -> CLIP | CustomTextCLIP:
    """Scale the position embeddings of a SigLIP to `PERSON_SIZE`, in place; a CLIP is built at that size."""
    if is_siglip(clip):
        clip.visual.set_input_size(PERSON_SIZE)
    return clip


def clip_config(name: str) -> dict[str, Any]:
    """Return the config from which `build_clip` makes the backbone `name` without weights. Raises BackboneError."""
    if name == "mini":
        config: dict[str, Any] = json.loads((WEIGHTS / "mini.json").read_text(encoding="utf-8"))["config"]
        return config
    wanted = ClipName.parse(name)
    config = open_clip.get_model_config(wanted.architecture) | {"quick_gelu": wanted.quick_gelu}
    return config | {"vision_cfg": config["vision_cfg"] | {"image_size": PERSON_SIZE}}


def _from_file(name: str, wanted: ClipName, weights: Path) -> CLIP | CustomTextCLIP:
    clip = build_clip(clip_config(name))
    try:
        read = frozen_part(read_state(weights))
        state = {key: value.float() for key, value in read.items() if key.split(".")[-1] not in _NO_WEIGHTS}
        own = clip.state_dict()
        for unused in sorted(own.keys() & {"logit_scale", "logit_bias"}):
            value = state.setdefault(unused, own[unused])
            state[unused] = value.reshape(()) if is_siglip(clip) and value.numel() == 1 else value
        patches = len(state.get("visual.positional_embedding", ())) - 1
        if patches > 0 and math.isqrt(patches) ** 2 == patches:  # open_clip takes the old grid for square
            resize_pos_embed(state, clip)
        found = faults(own, state)
        if found:
            raise ValueError(listed(found))
        clip.load_state_dict(state)
    except Exception as error:
        raise BackboneError(
            f"the weights of backbone {name!r} could not be read from the file {weights} ({_first_line(error, 600)}). "
            f"Expected a state dict of {wanted.architecture}{'-quickgelu' if wanted.quick_gelu else ''}, as "
            ".safetensors, saved by torch.save, or OpenAI's archive: check the file."
        ) from error
    return clip


def load_mini(path: Path) -> Backbone:
    """Load a small CLIP written by `save_mini`: the bundled one, or one that `python -m train pretrain` made."""
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        state = {key: value.float() if value.is_floating_point() else value for key, value in load_file(path).items()}
        ids, rows = state.pop("token_ids"), state.pop("token_rows")
        clip = build_clip(facts["config"])
        neutral, known = rows[0], rows[1:]
        table = neutral.expand(clip.vocab_size, -1).clone()
        table[ids] = known
        clip.load_state_dict(state | {"token_embedding.weight": table}, strict=True)
        _check_finite(clip)
        height, width = facts["config"]["vision_cfg"]["image_size"]
        known_words = frozenset(facts["known_words"])
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, IndexError, SafetensorError) as error:
        raise BackboneError(
            f"the weights of `mini` could not be read from {path} ({_first_line(error)}). They come with the "
            "package: restore the file, or make it again with `python -m train pretrain`."
        ) from error
    return Backbone(
        "mini",
        freeze(clip),
        open_clip.SimpleTokenizer(context_length=clip.context_length),
        (height, width),
        known_words=known_words,
        known_tokens=ids,
        facts=facts,
    )


def build_clip(config: dict[str, Any]) -> CLIP | CustomTextCLIP:
    """Build an untrained CLIP of open_clip's own class from `embed_dim`, `vision_cfg`, `text_cfg` and `quick_gelu`.

    With `custom_text` it is a SigLIP, at the size of its timm model (`at_person_size`).
    """
    vision = config["vision_cfg"] | {"image_size": tuple(config["vision_cfg"]["image_size"])}
    kind = CustomTextCLIP if config.get("custom_text") else CLIP
    return kind(**({key: value for key, value in config.items() if key != "custom_text"} | {"vision_cfg": vision}))


def save_mini(clip: CLIP, path: Path, *, rows: Tensor, ids: Tensor, facts: dict[str, Any]) -> None:
    """Write a small CLIP as fp16 safetensors and its `facts` (config, known_words, metrics) as JSON beside it.

    Of the token embedding only rows (1 + N, D) are stored: the neutral one first, then those of the N `ids`.
    """
    state = {
        key: value.half().contiguous() for key, value in clip.state_dict().items() if key != "token_embedding.weight"
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state | {"token_rows": rows.half().contiguous(), "token_ids": ids.long().contiguous()}, path)
    path.with_suffix(".json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def freeze(clip: CLIP | CustomTextCLIP) -> CLIP | CustomTextCLIP:
    """Put the model into evaluation mode and make every parameter untrainable."""
    clip.eval()
    for parameter in clip.parameters():
        parameter.requires_grad_(False)
    return clip


def _check_finite(clip: CLIP) -> None:
    for name, parameter in clip.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ValueError(f"{name} holds NaN or infinity")


def _first_line(error: BaseException, most: int = 200) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:most]}" if lines else type(error).__name__


def device_of(clip: CLIP) -> torch.device:
    """Return the device of the model's parameters."""
    return next(clip.parameters()).device
