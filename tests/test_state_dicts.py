"""State dicts: every way they are written is read (archives: test_backbones), and what does not fit is reported."""

from __future__ import annotations

import argparse
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from core.state_dicts import as_state, faults, frozen_part, listed, read_state

STATE = {"ln.weight": torch.ones(2), "ln.bias": torch.tensor([0.5, -1.0])}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in STATE.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind", ["safetensors", "plain", "state_dict", "model", "both"])
def test_a_state_dict_is_read_however_a_trainer_wrote_it(tmp_path: Path, kind: str, prefix: str) -> None:
    path, state = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt"), prefixed(prefix)
    if kind == "safetensors":
        save_file(state, path)
    else:
        inside = {"plain": state, "both": {"epoch": 3, "state_dict": {"model": state}}}
        torch.save(inside.get(kind, {kind: state, "epoch": 3}), path)
    read = read_state(path)
    assert read.keys() == STATE.keys()
    assert all(torch.equal(value, STATE[name]) for name, value in read.items())


def test_only_a_prefix_that_all_names_have_is_the_trainers() -> None:
    mixed = {**prefixed("module."), "head": torch.zeros(1)}
    assert as_state(mixed).keys() == mixed.keys()
    for none in ([1], {"a": 1}, "text", None):
        with pytest.raises(ValueError, match="expected a state dict"):
            as_state(none)


class Config:
    """A trainer's own class: unpickling it would import this module."""


BESIDE = {
    "epoch": 60,
    "best": np.float64(74.5),
    "args": argparse.Namespace(lr=1e-4, out=Path("/runs"), seen=np.zeros(3), more=defaultdict(list)),
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": np.float32(0.1)}]},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "saved",
    [
        {"model": STATE, **BESIDE},
        {"model_state_dict": STATE, **BESIDE},
        {"state_dict": prefixed("model."), "pytorch-lightning_version": "2.4", **BESIDE},
        {"net": prefixed("module.model."), "acc": np.int64(3)},
        {"netG": STATE, "epoch": 3},
        {**STATE, "epoch": 3, "best": np.float64(1.0), "ln._extra_state": None},
        {"checkpoint": {"model": prefixed("_orig_mod.module.")}},
    ],
)
def test_what_trainers_keep_beside_the_tensors_is_no_hindrance(
    tmp_path: Path, saved: dict[str, object], zipped: bool
) -> None:
    torch.save(saved, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    read = read_state(tmp_path / "w.pt")
    assert read.keys() == STATE.keys()
    assert all(torch.equal(value, STATE[name]) for name, value in read.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_with_code_of_its_own_names_it_and_the_way_out(tmp_path: Path, zipped: bool) -> None:
    torch.save({"model": STATE, "config": Config()}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"code of its own \(tests\.test_state_dicts\.Config\).*state_dict\(\)"):
        read_state(tmp_path / "w.pt")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="a whole model is in it"):
        read_state(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html><head><title>Google Drive", "a web page, not weights"),
        (b"\n <HTML>", "a web page, not weights"),
        (b'{"error": "not found"}', "JSON text, not weights"),
        (b"\x1f\x8b\x08 and so on", "packed .gzip.: unpack it"),
        (b"\x89HDF\r\n", "HDF5, as Keras writes it"),
        (b"no weights at all", "no file of torch.save"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_is_no_weights_file_is_named(tmp_path: Path, data: bytes, said: str, name: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=said):
        read_state(tmp_path / name)


def test_zips_that_break_off_or_hold_something_else_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("weights.pth", b"x")
    with pytest.raises(ValueError, match=r"a zip that torch\.save did not write: unpack it"):
        read_state(tmp_path / "w.pt")
    torch.save(STATE, tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:-300])
    with pytest.raises(ValueError, match="breaks off in the middle"):
        read_state(tmp_path / "w.pt")


def test_a_file_is_known_by_its_contents_not_by_its_ending(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.pth")
    torch.save(STATE, tmp_path / "w.safetensors")
    assert all(read_state(tmp_path / name).keys() == STATE.keys() for name in ("w.pth", "w.safetensors"))


def test_clip_is_found_inside_a_larger_model() -> None:
    clip = {"visual.proj": torch.ones(1), "ln_final.weight": torch.zeros(1)}
    for prefix in ("base_model.", "clip.", "model.clip_model."):
        larger = {f"{prefix}{name}": value for name, value in clip.items()} | {"classifier.weight": torch.ones(2)}
        assert frozen_part(larger) == clip


def test_the_frozen_part_of_a_released_checkpoint_is_clips_own() -> None:
    inside = {"visual.proj": torch.ones(1), "transformer.resblocks.0.adapter_ln_msa.down.weight": torch.ones(1)}
    released = {f"base_model.{name}": value for name, value in inside.items()} | {"LORA_learner.x": torch.ones(1)}
    assert frozen_part(released).keys() == {"visual.proj"}
    assert frozen_part(STATE).keys() == STATE.keys()


def test_every_fault_is_reported_and_many_are_counted() -> None:
    found = faults(
        {**STATE, "gone": torch.ones(1), "whole": torch.ones(1)},
        {"ln.weight": torch.ones(3), "ln.bias": torch.tensor([0.0, torch.inf]), "whole": torch.ones(1).half(),
         "more": torch.ones(1)},
    )  # fmt: skip
    assert found == [
        "missing gone",
        "unexpected more",
        "ln.bias holds NaN or infinity",
        "ln.weight is (3,), expected (2,)",
        "whole is torch.float16, expected torch.float32",
    ]
    assert listed(found, 2) == "missing gone; unexpected more; and 3 more"
