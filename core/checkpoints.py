"""PETL weights on disk: our own files (safetensors + JSON), and those of the released implementation."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.backbones import Backbone, build_clip, freeze
from core.errors import CheckpointError
from core.model import UPPerson
from core.petl import PetlConfig

WEIGHTS_FILE, CONFIG_FILE = "petl.safetensors", "petl.json"
FORMAT = 1
_KEYS = {"format", "backbone", "fingerprint", "petl"}


def save_petl(model: UPPerson, folder: Path) -> None:
    """Write exactly the PETL parameters to `folder`, with their config; each file appears whole or not at all."""
    if model.config is None:
        raise CheckpointError("this model is the plain backbone: it has no PETL weights to save")
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "format": FORMAT,
        "backbone": model.backbone.name,
        "fingerprint": model.backbone.fingerprint(),
        "petl": model.config.to_json(),
    }
    state = {name: parameter.detach().cpu().contiguous() for name, parameter in model.petl_parameters().items()}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as scratch:
        weights, text = Path(scratch, WEIGHTS_FILE), Path(scratch, CONFIG_FILE)
        save_file(state, weights, metadata={"backbone": model.backbone.name})
        text.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        for file in (text, weights):  # the weights last: a folder that has them is complete
            with file.open("rb") as written:
                os.fsync(written.fileno())
            os.replace(file, folder / file.name)


def read_petl_config(folder: Path) -> tuple[str, PetlConfig]:
    """The backbone's name and the PetlConfig stored in `folder`. Raises CheckpointError."""
    data = _read_config(folder)
    return str(data["backbone"]), data["petl"]


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or set(data) != _KEYS or data["format"] != FORMAT:
            raise ValueError(
                f"expected 'format' {FORMAT} and the keys {', '.join(map(repr, sorted(_KEYS)))}, got {str(data)[:200]}"
            )
        return {**data, "petl": PetlConfig.from_json(data["petl"])}
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"the PETL config {path} could not be read ({error}): restore it or train again"
        ) from error


def load_petl(model: UPPerson, folder: Path) -> None:
    """Fill `model`'s PETL parameters from `folder`, all or none.

    Raises CheckpointError when a file is damaged, belongs to another backbone or config, or holds keys that
    are missing, extra, of another shape or type, or not finite.
    """
    facts = _read_config(folder)
    backbone, config = facts["backbone"], facts["petl"]
    if backbone != model.backbone.name or config != model.config:
        raise CheckpointError(
            f"the PETL weights in {folder} were made for backbone {backbone!r} with {config}; "
            f"this model is {model.backbone.name!r} with {model.config}: load them into a model like theirs"
        )
    if facts["fingerprint"] != model.backbone.fingerprint():
        raise CheckpointError(
            f"the PETL weights in {folder} were made for other weights of {backbone!r} (fingerprint "
            f"{facts['fingerprint']}, these have {model.backbone.fingerprint()}): restore those, or train again"
        )
    path = folder / WEIGHTS_FILE
    try:
        state = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"the PETL weights {path} are damaged or missing ({error}): restore or train again"
        ) from error
    _copy_into(model.petl_parameters(), state, str(path))


def load_version(backbone: Backbone, folder: Path) -> UPPerson:
    """The model of `backbone` with the PETL weights in `folder`. Raises CheckpointError."""
    _, config = read_petl_config(folder)
    model = UPPerson(backbone, config)
    load_petl(model, folder)
    return model


def _copy_into(targets: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str) -> None:
    """Copy `state` into `targets` if every key, shape and type agrees and every number is finite."""
    faults = [f"missing {name}" for name in sorted(set(targets) - set(state))]
    faults += [f"unexpected {name}" for name in sorted(set(state) - set(targets))]
    for name in sorted(set(targets) & set(state)):
        if targets[name].shape != state[name].shape:
            faults.append(f"{name} is {tuple(state[name].shape)}, expected {tuple(targets[name].shape)}")
        elif targets[name].dtype != state[name].dtype:
            faults.append(f"{name} is {state[name].dtype}, expected {targets[name].dtype}")
        elif not torch.isfinite(state[name]).all():
            faults.append(f"{name} holds NaN or infinity")
    if faults:
        shown = "; ".join(faults[:10]) + (f"; and {len(faults) - 10} more" if len(faults) > 10 else "")
        raise CheckpointError(f"{origin} does not fit this model: {shown}")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(state[name])


def load_released(source: Path | Mapping[str, Tensor], *, image_size: tuple[int, int] = (384, 128)) -> UPPerson:
    """A model from a state dict of the released implementation (backbone and PETL together), or its file.

    Every size is inferred from the tensors (heads = width // 64). Files are read weights-only and may hold
    the state dict itself or `{"model": state dict}`. Raises CheckpointError.
    """
    state = _released_state(source)
    try:
        config, petl = _released_sizes(state, image_size)
    except KeyError as error:
        raise CheckpointError(f"this is not a complete UP-Person checkpoint: {error} is missing") from error
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"this is not an UP-Person checkpoint: its tensors have odd shapes ({error})") from error
    clip = build_clip(config)
    frozen = {key.removeprefix("base_model."): value.float() for key, value in state.items() if _is_clip(key)}
    targets = {key: value for key, value in clip.state_dict().items() if key != "logit_scale"}
    _copy_into(targets, {k: v for k, v in frozen.items() if k != "logit_scale"}, "the released checkpoint")

    def no_tokenizer(_: list[str]) -> Tensor:
        raise CheckpointError(
            f"this checkpoint has a vocabulary of {clip.vocab_size} tokens, not CLIP's: pass token ids, not captions"
        )

    tokenize = (
        open_clip.SimpleTokenizer(context_length=clip.context_length) if clip.vocab_size == 49408 else no_tokenizer
    )
    backbone = Backbone("released", freeze(clip), tokenize, image_size)
    model = UPPerson(backbone, petl)
    parameters = model.petl_parameters()
    named = {name: state[released_name(name)].float() for name in parameters if released_name(name) in state}
    _copy_into(parameters, named, "the released checkpoint")
    return model


def released_name(name: str) -> str:
    """The name that the released code gives to our PETL parameter `name`."""
    tower, index, place, rest = name.split(".", 3)
    side = "image" if tower == "image" else "text"
    prefix = "vit" if tower == "image" else "text"
    block = f"base_model.{'visual.' if tower == 'image' else ''}transformer.resblocks.{index}."
    lora = {"a": "lora_A", "b": "lora_B"}
    if rest.startswith("lora."):
        kind, which = rest.removeprefix("lora.").split("_")
        number = "kv".index(which)
        tail = f"scale.{number}.scale" if kind == "scale" else f"{lora[kind]}.{number}"
        return f"LORA_learner.lora_{side}.{index}.{tail}"
    if rest.startswith("prefix."):
        tail = {
            "keys": "key.tokens",
            "values": "val.tokens",
            "scale_k": "key.scaler.scale",
            "scale_v": "val.scaler.scale",
            "gain": "scale_to_grad",
        }[rest.removeprefix("prefix.")]
        return f"{prefix}_prefix_learner.{prefix}_prefix.{index}.{tail}"
    if rest == "scale":
        return block + ("scale_1" if place == "ln_1" else "scale_2")
    return block + ("adapter_ln_msa." if place == "ln_1" else "adapter_ln_mlp.") + rest


def _is_clip(key: str) -> bool:
    inside = key.removeprefix("base_model.")
    petl = (".adapter_ln_" in key) or key.endswith(("scale_1", "scale_2")) or ".attn.prefix." in key
    return inside != key and not petl


def _released_state(source: Path | Mapping[str, Tensor]) -> dict[str, Tensor]:
    if isinstance(source, Path):
        try:
            loaded = torch.load(source, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(
                f"{source} could not be read as weights ({type(error).__name__}). Expected a state dict saved by "
                "torch.save; files that need code to be run are refused."
            ) from error
    else:
        loaded = dict(source)
    if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping):
        loaded = loaded["model"]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError("expected a state dict (names to tensors) or {'model': state dict}")
    return {str(key): value for key, value in loaded.items()}


def _released_sizes(state: Mapping[str, Tensor], image_size: tuple[int, int]) -> tuple[dict[str, Any], PetlConfig]:
    def layers(prefix: str) -> int:
        at = prefix.count(".")
        return len({key.split(".")[at] for key in state if key.startswith(prefix)})

    vision_width, _, patch, _ = state["base_model.visual.conv1.weight"].shape
    vocabulary, text_width = state["base_model.token_embedding.weight"].shape
    clip = {
        "quick_gelu": True,  # the released code builds on OpenAI's weights
        "embed_dim": state["base_model.text_projection"].shape[1],
        "vision_cfg": {
            "image_size": image_size,
            "patch_size": patch,
            "width": vision_width,
            "layers": layers("base_model.visual.transformer.resblocks."),
            "head_width": 64,
        },
        "text_cfg": {
            "context_length": state["base_model.positional_embedding"].shape[0],
            "vocab_size": vocabulary,
            "width": text_width,
            "heads": text_width // 64,
            "layers": layers("base_model.transformer.resblocks."),
        },
    }
    petl = PetlConfig(
        prefix_length=state["vit_prefix_learner.vit_prefix.0.key.tokens"].shape[0],
        lora_rank=state["LORA_learner.lora_image.0.lora_A.0"].shape[0],
        adapter_reduction=vision_width
        // state["base_model.visual.transformer.resblocks.0.adapter_ln_msa.down.weight"].shape[0],
    )
    return clip, petl
