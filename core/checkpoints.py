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
from open_clip.transformer import QuickGELU
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.backbones import Backbone, build_clip, freeze
from core.core_errors import CheckpointError
from core.model import UPPerson
from core.petl import PetlConfig
from core.state_dicts import as_state, faults, listed, read_state

WEIGHTS_FILE, CONFIG_FILE = "petl.safetensors", "petl.json"
FORMAT = 1
_MOST_CONFIG_BYTES = 100_000
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
    """Return the backbone's name and the PetlConfig stored in `folder`. Raises CheckpointError."""
    data = _read_config(folder)
    return str(data["backbone"]), data["petl"]


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    try:
        if path.stat().st_size > _MOST_CONFIG_BYTES:
            raise ValueError(f"expected at most {_MOST_CONFIG_BYTES:,} bytes, it has {path.stat().st_size:,}")
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or set(data) != _KEYS or data["format"] != FORMAT:
            raise ValueError(
                f"expected 'format' {FORMAT} and the keys {', '.join(map(repr, sorted(_KEYS)))}, got {str(data)[:200]}"
            )
        return {**data, "petl": PetlConfig.from_json(data["petl"])}
    except (OSError, ValueError, TypeError, RecursionError) as error:
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
    """Return the model of `backbone` with the PETL weights in `folder`. Raises CheckpointError."""
    _, config = read_petl_config(folder)
    model = UPPerson(backbone, config)
    load_petl(model, folder)
    return model


def _copy_into(targets: Mapping[str, Tensor], state: Mapping[str, Tensor], origin: str) -> None:
    """Copy `state` into `targets` if every key, shape and type agrees and every number is finite."""
    found = faults(targets, state)
    if found:
        raise CheckpointError(f"{origin} does not fit this model: {listed(found)}")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(state[name])


def load_released(source: Path | Mapping[str, Tensor], *, image_size: tuple[int, int] = (384, 128)) -> UPPerson:
    """Return a model from a state dict of the released implementation (backbone and PETL together), or its file.

    Every size is inferred from the tensors (heads = width // 64). Files are read weights-only, in fp32 or fp16, and may
    hold the state dict itself or `{"model": state dict}`. Raises CheckpointError, which lists keys that are missing,
    unknown, of another shape, or not finite.
    """
    state = _released_state(source)
    config, petl = _sizes(state, image_size)
    clip = build_clip(config)

    def no_tokenizer(_: list[str]) -> Tensor:
        raise CheckpointError(
            f"this checkpoint has a vocabulary of {clip.vocab_size} tokens, not CLIP's: pass token ids, not captions"
        )

    tokenize = (
        open_clip.SimpleTokenizer(context_length=clip.context_length) if clip.vocab_size == 49408 else no_tokenizer
    )
    model = UPPerson(Backbone("released", freeze(clip), tokenize, image_size), petl)
    ours = _our_names(state, model)
    ours.setdefault("logit_scale", clip.logit_scale)
    _copy_into(clip.state_dict() | model.petl_parameters(), ours, "the released checkpoint")
    return model


def released_onto(backbone: Backbone, source: Path | Mapping[str, Tensor]) -> UPPerson:
    """Return the PETL weights of a released checkpoint on `backbone`, whose frozen weights must agree with its own.

    They agree when they are the same to the precision of fp16. Raises CheckpointError as `load_released`.
    """
    state = _released_state(source)
    _, petl = _sizes(state, backbone.image_size)
    model = UPPerson(backbone, petl)
    ours, frozen = _our_names(state, model), backbone.clip.state_dict()
    found = [
        f"{name} is missing or of another shape" for name, value in frozen.items() if not _same_shape(ours, name, value)
    ]
    found = found or [
        f"{name} differs" for name, value in frozen.items()
        if name != "logit_scale" and not torch.allclose(ours[name], value.cpu(), rtol=2**-10, atol=1e-6)
    ]  # fmt: skip
    if found:
        raise CheckpointError(
            f"the checkpoint was made on other frozen weights than those of {backbone.name!r}: {listed(found)}. Name "
            "the backbone it was made on, or give the checkpoint itself as its --weights"
        )
    petl_only = {name: value for name, value in ours.items() if name not in frozen}
    _copy_into(model.petl_parameters(), petl_only, "the released checkpoint")
    return model


def _same_shape(state: Mapping[str, Tensor], name: str, value: Tensor) -> bool:
    return name == "logit_scale" or (name in state and state[name].shape == value.shape)


def save_released(model: UPPerson, path: Path) -> None:
    """Write `model` under the released names, whole or not at all: `load_released` gives its tensors back bitwise.

    Where the gain started is not written: what was learnt is. Raises CheckpointError for what the released code has no
    name for, or would read as another model.
    """
    if model.config is None or (lacking := _not_in_released(model, model.config)):
        raise CheckpointError(
            "the released format holds both towers with prefix, a learnt gain, LoRA and L-Adapters in every block, the "
            f"same sizes everywhere, and heads 64 wide; this model has "
            f"{lacking if model.config else 'none of them'}: save it by `save_petl`"
        )
    if not any(isinstance(module, QuickGELU) for module in model.clip.modules()):
        raise CheckpointError(
            f"the released code computes QuickGELU, as OpenAI's weights want it; {model.backbone.name!r} was trained "
            "with GELU and would come back as another model: save it by `save_petl`"
        )
    state = {f"base_model.{name}": value for name, value in model.backbone.clip.state_dict().items()}
    for name, parameter in model.petl_parameters().items():
        state[released_name(name)] = parameter.detach()
        if ".prefix." in name:  # the released modules hold these twice
            state[_twin(name)] = parameter.detach()
    part = path.with_name(f".{path.name}.part")
    try:
        torch.save({"model": {name: value.cpu() for name, value in state.items()}}, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _not_in_released(model: UPPerson, config: PetlConfig) -> str:
    """Return what `load_released` could not derive from the tensors; empty if there is nothing."""
    if model.backbone.siglip:
        return "the towers of SigLIP"
    plain = PetlConfig(config.prefix_length, config.prefix_gain, config.lora_rank, config.adapter_reduction)
    if config != plain or config.prefix_gain is None:
        return str(config)
    for size in ("prefix_length", "lora_rank", "adapter_reduction"):
        if getattr(config, size) == 0:
            return f"{size} 0"
    towers = {"image": model.backbone.clip.visual.transformer, "text": model.backbone.clip.transformer}
    for tower, transformer in towers.items():
        width, heads = transformer.width, transformer.resblocks[0].attn.num_heads
        if width % config.adapter_reduction:
            return f"adapter_reduction {config.adapter_reduction}, which does not divide the {tower} width {width}"
        if heads != width // 64:
            return f"{heads} heads in the {tower} tower, {width} wide"
    return ""


def _twin(name: str) -> str:
    """Return the second name of a prefix tensor in the released state dict."""
    tower, index = name.split(".")[:2]
    tail = released_name(name).split(".", 3)[3]
    return f"base_model.{'visual.' if tower == 'image' else ''}transformer.resblocks.{index}.attn.prefix.{tail}"


def _our_names(state: Mapping[str, Tensor], model: UPPerson) -> dict[str, Tensor]:
    """Return a released state dict in fp32 under our names; what nobody knows keeps its name."""
    parameters = model.petl_parameters()
    names = {released_name(name): name for name in parameters}
    twins = {_twin(name) for name in parameters if ".prefix." in name}
    return {
        names.get(key, key.removeprefix("base_model.")): value.float()
        for key, value in state.items()
        if key not in twins
    }


def _sizes(state: Mapping[str, Tensor], image_size: tuple[int, int]) -> tuple[dict[str, Any], PetlConfig]:
    try:
        return _released_sizes(state, image_size)
    except KeyError as error:
        raise CheckpointError(f"this is not a complete UP-Person checkpoint: {error} is missing") from error
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"this is not an UP-Person checkpoint: its tensors have odd shapes ({error})") from error


def released_name(name: str) -> str:
    """Return the name that the released code gives to our PETL parameter `name`."""
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


def _released_state(source: Path | Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(source, Path):
        inner = source.get("model")
        try:
            return as_state(inner if isinstance(inner, Mapping) else source)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
    try:
        return read_state(source)
    except Exception as error:
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise CheckpointError(
            f"{source} could not be read as weights ({reason}). Expected a state dict saved by torch.save; files that "
            "need code to be run are refused."
        ) from error


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
