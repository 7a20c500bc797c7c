"""PETL weights on disk: exactly the PETL keys, bitwise back, and nothing damaged gets in."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.backbones import Backbone, freeze
from core.checkpoints import (
    load_petl,
    load_released,
    load_version,
    read_petl_config,
    released_name,
    released_onto,
    save_petl,
    save_released,
)
from core.core_errors import CheckpointError
from core.model import UPPerson
from core.petl import PetlConfig
from tests.small_clip import CONFIG as CLIP_CONFIG
from tests.small_clip import small_backbone, small_clip, stir

CONFIG = PetlConfig(prefix_length=3, lora_rank=4)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone()


@pytest.fixture
def model(backbone: Backbone) -> UPPerson:
    return stir(UPPerson(backbone, CONFIG))


def test_the_file_holds_exactly_the_petl_weights(model: UPPerson, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "mini-v1"
    save_petl(model, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["petl.json", "petl.safetensors"]
    with safe_open(folder / "petl.safetensors", framework="pt") as file:
        keys, metadata = set(file.keys()), file.metadata()
    parts = [
        *(f"attn.lora.{name}" for name in ("a_k", "a_v", "b_k", "b_v", "scale_k", "scale_v")),
        *(f"attn.prefix.{name}" for name in ("keys", "values", "scale_k", "scale_v", "gain")),
        *(f"ln_1.{name}" for name in ("down.weight", "down.bias", "up.weight", "up.bias", "scale")),
        *(f"ln_2.{name}" for name in ("down.weight", "down.bias", "up.weight", "up.bias", "scale")),
    ]
    assert keys == {f"{tower}.{index}.{part}" for tower in ("image", "text") for index in (0, 1) for part in parts}
    assert metadata == {"backbone": "small"}
    assert json.loads((folder / "petl.json").read_text()) == {
        "format": 1,
        "backbone": "small",
        "fingerprint": model.backbone.fingerprint(),
        "petl": {
            "prefix_length": 3,
            "prefix_gain": 10.0,
            "lora_rank": 4,
            "adapter_reduction": 8,
            "towers": ["image", "text"],
        },
    }
    assert read_petl_config(folder) == ("small", CONFIG)


def test_weights_come_back_bitwise(model: UPPerson, backbone: Backbone, tmp_path: Path) -> None:
    save_petl(model, tmp_path)
    other = UPPerson(backbone, CONFIG)
    load_petl(other, tmp_path)
    made = load_version(backbone, tmp_path)
    assert made.config == CONFIG
    tokens = backbone.tokenize(["a woman in a red coat"])
    with torch.inference_mode():
        expected = model.encode_text(tokens)
        for back in (other, made):
            loaded = back.petl_parameters()
            for name, parameter in model.petl_parameters().items():
                assert torch.equal(loaded[name], parameter), name
                assert loaded[name].requires_grad
            assert torch.equal(back.encode_text(tokens), expected)


def test_one_tower_and_saving_over_it(backbone: Backbone, tmp_path: Path) -> None:
    config = PetlConfig(prefix_length=0, lora_rank=2, adapter_reduction=0, towers=("text",))
    for seed in (1, 2):
        model = stir(UPPerson(backbone, config), seed=seed)
        save_petl(model, tmp_path)
        loaded = load_version(backbone, tmp_path).petl_parameters()
        assert all(torch.equal(loaded[name], value) for name, value in model.petl_parameters().items())
    assert len(list(tmp_path.iterdir())) == 2


def test_a_plain_model_has_nothing_to_save(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="plain backbone: it has no PETL weights to save"):
        save_petl(UPPerson(backbone), tmp_path / "never")
    assert not (tmp_path / "never").exists()


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = load_file(folder / "petl.safetensors")
    change(state)
    save_file(state, folder / "petl.safetensors")


def with_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((folder / "petl.json").read_text())
    change(data)
    (folder / "petl.json").write_text(json.dumps(data))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


KEY = "text.1.attn.lora.b_v"
WEIGHTS, JSON = r"petl\.safetensors", r"petl\.json"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda f: cut(f / "petl.safetensors", 5000), WEIGHTS + " are damaged or missing"),
    "cut in the header": (lambda f: cut(f / "petl.safetensors", 20), WEIGHTS + " are damaged or missing"),
    "empty": (lambda f: cut(f / "petl.safetensors", 0), WEIGHTS + " are damaged or missing"),
    "gone": (lambda f: (f / "petl.safetensors").unlink(), WEIGHTS + " are damaged or missing"),
    "not safetensors": (lambda f: (f / "petl.safetensors").write_bytes(b"\x80\x04" * 999), WEIGHTS + " are damaged"),
    "NaN": (lambda f: rewritten(f, lambda s: s[KEY][0, 0].fill_(torch.nan)), f"{WEIGHTS} .* {KEY} holds NaN"),
    "infinity": (
        lambda f: rewritten(f, lambda s: s[KEY][1, 1].fill_(-torch.inf)),
        f"{WEIGHTS} .* {KEY} holds NaN or inf",
    ),
    "missing": (lambda f: rewritten(f, lambda s: s.pop(KEY)), f"{WEIGHTS} does not fit this model: missing {KEY}$"),
    "extra": (
        lambda f: rewritten(f, lambda s: s.update({"visual.proj": torch.zeros(2)})),
        rf"{WEIGHTS} does not fit this model: unexpected visual\.proj$",
    ),
    "misshapen": (
        lambda f: rewritten(f, lambda s: s.update({KEY: s[KEY].T.contiguous()})),
        rf"{KEY} is \(4, 64\), expected \(64, 4\)$",
    ),
    "whole numbers": (
        lambda f: rewritten(f, lambda s: s.update({KEY: s[KEY].long()})),
        f"{KEY} is torch.int64, expected",
    ),
    "half precision": (
        lambda f: rewritten(f, lambda s: s.update({KEY: s[KEY].half()})),
        f"{KEY} is torch.float16, exp",
    ),
    "no config": (lambda f: (f / "petl.json").unlink(), JSON + " could not be read"),
    "config cut": (lambda f: cut(f / "petl.json", 30), JSON + " could not be read"),
    "config no text": (lambda f: (f / "petl.json").write_bytes(b"\xff\xfe\xfd"), JSON + " could not be read"),
    "config a list": (lambda f: (f / "petl.json").write_text("[1]"), JSON + r" could not be read .*got \[1\]"),
    "no backbone": (lambda f: with_config(f, lambda d: d.pop("backbone")), JSON + " could not be read .*'backbone'"),
    "no options": (lambda f: with_config(f, lambda d: d.pop("petl")), JSON + " could not be read .*'petl'"),
    "later format": (lambda f: with_config(f, lambda d: d.update(format=2)), JSON + " could not be read .*'format' 1"),
    "unknown key": (lambda f: with_config(f, lambda d: d.update(depth=0)), JSON + " could not be read .*'depth'"),
    "unknown option": (
        lambda f: with_config(f, lambda d: d["petl"].update(depth=0)),
        JSON + ".*unknown PETL options: depth",
    ),
    "bad option": (lambda f: with_config(f, lambda d: d["petl"].update(lora_rank=-1)), JSON + ".*lora_rank must be"),
    "options a list": (lambda f: with_config(f, lambda d: d.update(petl=[])), JSON + ".*expected PETL options by name"),
    "no towers": (lambda f: with_config(f, lambda d: d["petl"].update(towers=None)), JSON + " could not be read"),
    "other backbone": (
        lambda f: with_config(f, lambda d: d.update(backbone="ViT-B-16")),
        r"were made for backbone 'ViT-B-16' .*this model is 'small'",
    ),
    "other weights": (
        lambda f: with_config(f, lambda d: d.update(fingerprint="0" * 16)),
        r"were made for other weights of 'small' \(fingerprint 0{16}, these have [0-9a-f]{16}\)",
    ),
    "other rank": (
        lambda f: with_config(f, lambda d: d["petl"].update(lora_rank=8)),
        "a_k is .4, 128., expected .8, 128.",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_named_and_changes_nothing(
    damage: str, model: UPPerson, backbone: Backbone, tmp_path: Path
) -> None:
    harm, says = DAMAGE[damage]
    save_petl(stir(UPPerson(backbone, CONFIG), seed=9), tmp_path)
    harm(tmp_path)
    with pytest.raises(CheckpointError, match=says):
        load_version(backbone, tmp_path)
    before = {name: value.detach().clone() for name, value in model.petl_parameters().items()}
    with pytest.raises(CheckpointError, match=tmp_path.name):
        load_petl(model, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.petl_parameters().items())


def test_many_faults_are_counted_not_listed(model: UPPerson, tmp_path: Path) -> None:
    save_petl(model, tmp_path)
    rewritten(tmp_path, lambda state: [state.pop(name) for name in list(state)[:40]])
    with pytest.raises(CheckpointError, match=r"(missing \S+; ){10}and 30 more$"):
        load_petl(model, tmp_path)


def test_weights_of_another_config_are_refused(model: UPPerson, backbone: Backbone, tmp_path: Path) -> None:
    save_petl(model, tmp_path)
    for other in (UPPerson(backbone, PetlConfig(lora_rank=8)), UPPerson(backbone)):
        with pytest.raises(CheckpointError, match=r"lora_rank=4.*load them into a model like theirs"):
            load_petl(other, tmp_path)


def released_state(model: UPPerson) -> dict[str, Tensor]:
    """The state dict that the released code would write for `model`."""
    petl = {released_name(name): value.detach() for name, value in model.petl_parameters().items()}
    return petl | {f"base_model.{name}": value for name, value in model.backbone.clip.state_dict().items()}


def test_released_weights_load_from_a_file_and_give_the_same_embeddings(model: UPPerson, tmp_path: Path) -> None:
    path, backbone = tmp_path / "best.pth", model.backbone
    torch.save({"model": released_state(model)}, path)
    loaded = load_released(path, image_size=backbone.image_size)
    assert loaded.config == CONFIG
    tokens = loaded.backbone.tokenize(["a woman in a red coat"])
    pictures = torch.randn(2, 3, *backbone.image_size)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.encode_text(tokens), model.encode_text(tokens), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(loaded.encode_image(pictures), model.encode_image(pictures), rtol=1e-6, atol=1e-6)


def test_released_weights_come_back_bitwise_and_half_precision_is_read(model: UPPerson, tmp_path: Path) -> None:
    path, size = tmp_path / "best.pth", model.backbone.image_size
    save_released(model, path)
    written = torch.load(path, weights_only=True)["model"]
    twin = "base_model.visual.transformer.resblocks.0.attn.prefix.key.tokens"
    assert torch.equal(written[twin], written["vit_prefix_learner.vit_prefix.0.key.tokens"])
    assert set(written) > set(released_state(model))
    back = load_released(path, image_size=size)
    assert back.config == model.config
    assert all(torch.equal(p, back.petl_parameters()[name]) for name, p in model.petl_parameters().items())
    frozen = back.backbone.clip.state_dict()
    assert all(torch.equal(value, frozen[name]) for name, value in model.backbone.clip.state_dict().items())
    save_released(back, tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)["model"]
    assert again.keys() == written.keys()
    assert all(torch.equal(value, written[name]) for name, value in again.items())
    half = load_released({name: value.half() for name, value in written.items()}, image_size=size)
    assert all(p.dtype == torch.float32 for p in half.parameters())
    name = "image.0.ln_1.up.weight"
    assert torch.equal(half.petl_parameters()[name], model.petl_parameters()[name].half().float())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.pth", "best.pth"]


def test_a_gain_that_started_elsewhere_comes_back_as_it_was_learnt(backbone: Backbone, tmp_path: Path) -> None:
    model = stir(UPPerson(backbone, PetlConfig(prefix_length=3, prefix_gain=2.5, lora_rank=4)))
    save_released(model, tmp_path / "x.pth")
    back = load_released(tmp_path / "x.pth", image_size=backbone.image_size)
    assert model.petl_parameters()["text.1.attn.prefix.gain"] < 4
    assert all(torch.equal(p, back.petl_parameters()[name]) for name, p in model.petl_parameters().items())
    tokens = backbone.tokenize(["a woman in a red coat"])
    with torch.inference_mode():
        assert torch.equal(back.encode_text(tokens), model.encode_text(tokens))


@pytest.mark.parametrize(
    ("config", "has"),
    [
        (PetlConfig(prefix_gain=None), "PetlConfig.*prefix_gain=None"),
        (PetlConfig(adapter="sequential"), "PetlConfig.*sequential"),
        (PetlConfig(towers=("text",)), "PetlConfig.*text"),
        (PetlConfig(prefix_length=0), "prefix_length 0"),
        (PetlConfig(lora_rank=0), "lora_rank 0"),
        (PetlConfig(adapter_reduction=0), "adapter_reduction 0"),
        (PetlConfig(adapter_reduction=12), "adapter_reduction 12, which does not divide the image width 128"),
        (None, "none of them"),
    ],
)
def test_what_the_released_format_cannot_hold_is_not_written(
    backbone: Backbone, config: PetlConfig | None, has: str, tmp_path: Path
) -> None:
    with pytest.raises(
        CheckpointError, match=rf"the released format holds both towers .*{has}.*save it by `save_petl`"
    ):
        save_released(UPPerson(backbone, config), tmp_path / "x.pth")
    assert not list(tmp_path.iterdir())


def test_heads_of_another_width_than_the_released_are_not_written(tmp_path: Path) -> None:
    config = CLIP_CONFIG | {"text_cfg": CLIP_CONFIG["text_cfg"] | {"heads": 2}}
    narrow = replace(small_backbone(), clip=freeze(small_clip(config)))
    with pytest.raises(CheckpointError, match=r"2 heads in the text tower, 64 wide"):
        save_released(UPPerson(narrow, CONFIG), tmp_path / "x.pth")


def test_released_weights_go_onto_their_own_backbone_only(model: UPPerson) -> None:
    state = released_state(model)
    made = released_onto(model.backbone, state)
    assert made.backbone is model.backbone
    assert all(torch.equal(p, made.petl_parameters()[name]) for name, p in model.petl_parameters().items())
    with pytest.raises(CheckpointError, match=r"frozen weights than those of 'other': .* differs; .* and \d+ more"):
        released_onto(small_backbone("other", seed=4), state)


def test_every_fault_of_released_weights_is_in_one_error(model: UPPerson) -> None:
    state = {name: value.clone() for name, value in released_state(model).items()}
    del state["base_model.ln_final.weight"], state["LORA_learner.lora_text.1.lora_A.0"]
    state |= {"base_model.visual.proj": torch.zeros(3), "head.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError) as caught:
        load_released(state, image_size=model.backbone.image_size)
    for fault in (
        "missing ln_final.weight",
        "missing text.1.attn.lora.a_k",
        "unexpected head.weight",
        "visual.proj is (3,)",
    ):
        assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.pop("base_model.text_projection"), "text_projection' is missing"),
        (lambda s: s.pop("base_model.ln_final.weight"), "missing ln_final.weight"),
        (lambda s: s.update({"base_model.visual.conv1.weight": torch.zeros(3)}), "odd shapes"),
        (lambda s: s.update({"base_model.text_projection": torch.zeros(3)}), "odd shapes"),
        (lambda s: s["base_model.text_projection"].fill_(torch.nan), "text_projection holds NaN"),
        (lambda s: s.update({"base_model.note": "text"}), "expected a state dict .names to tensors."),
    ],
)
def test_released_weights_that_are_damaged_are_refused(
    model: UPPerson, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    state = {name: value.clone() for name, value in released_state(model).items()}
    change(state)
    with pytest.raises(CheckpointError, match=says):
        load_released(state, image_size=model.backbone.image_size)


def test_released_weights_for_another_picture_size_are_refused(model: UPPerson) -> None:
    with pytest.raises(CheckpointError, match=r"visual\.positional_embedding is"):
        load_released(released_state(model), image_size=(384, 128))


class Malice:
    """Unpickling this runs code: it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_code_in_released_files_is_refused_and_not_run(tmp_path: Path) -> None:
    plain, zipped, text = tmp_path / "plain.pth", tmp_path / "zipped.pth", tmp_path / "text.pth"
    plain.write_bytes(pickle.dumps(Malice(tmp_path / "ran")))
    torch.save({"model": Malice(tmp_path / "ran")}, zipped)
    text.write_text("no weights")
    for path in (plain, zipped, text, tmp_path / "gone.pth"):
        with pytest.raises(CheckpointError, match=f"{path.name} could not be read as weights"):
            load_released(path)
    assert not (tmp_path / "ran").exists()
