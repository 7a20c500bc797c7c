"""Weights made to do harm: nothing in them is run, memory stays bounded, and a sentence says what is wrong."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from core.state_dicts import read_state


def torchscript(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """A file that is taken for OpenAI's archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/constants.pkl", pickle.dumps(()))
        for name, data in (storages or {}).items():
            archive.writestr(f"a/data/{name}", data)
    return path


def module(attributes: bytes) -> bytes:
    """A pickle of one module, with the dict that these opcodes build as its attributes."""
    return b"\x80\x02c__torch__.M\nX\n)\x81" + attributes + b"b."


def test_a_number_that_fills_memory_is_refused(tmp_path: Path) -> None:
    bomb = module(b"}r" + struct.pack("<I", 2**32 - 1))
    with pytest.raises(ValueError, match="numbers its parts up to 4,294,967,295"):
        read_state(torchscript(tmp_path / "a.pt", bomb))


def test_modules_that_hold_each_other_end(tmp_path: Path) -> None:
    layers = b"}"
    for _ in range(60):  # each holds the one before it twice, so that there are 2**60 ways to the first
        layers = b"}X\x01\0\0\0ac__torch__.M\nX\n)\x81" + layers + b"bq\x01sX\x01\0\0\0bh\x01s"
    with pytest.raises(ValueError, match="hold each other without end"):
        read_state(torchscript(tmp_path / "a.pt", module(layers)))
    itself = b"\x80\x02c__torch__.M\nX\n)\x81q\x01}X\x01\0\0\0ah\x01sb."
    with pytest.raises(ValueError, match="hold each other without end"):
        read_state(torchscript(tmp_path / "b.pt", itself))


@pytest.mark.parametrize("names", ["posix\nsystem", "builtins\neval", "torch._utils\n_rebuild_wrapper_subclass"])
def test_an_archive_cannot_reach_code(tmp_path: Path, names: str) -> None:
    with pytest.raises(ValueError, match="which is no tensor"):
        read_state(torchscript(tmp_path / "a.pt", b"\x80\x02c" + names.encode() + b"\nX\x02\0\0\0id\x85R."))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data/0", "w") as file:
        for _ in range(110):
            file.write(bytes(1_000_000))
    with pytest.raises(ValueError, match=r"unpacks from .* to 110,000,000 bytes, as only a zip bomb does"):
        read_state(path)


@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_a_tensor_that_repeats_one_number_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(1).expand(10**6, 10**5)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"w says it is \(1000000, 100000\), which is more than the file holds"):
        read_state(tmp_path / "a.pt")
    torch.save({"w": torch.sparse_coo_tensor(size=(10**6, 10**5), check_invariants=True)}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match="more than the file holds"):
        read_state(tmp_path / "b.pt")


def test_a_storage_of_a_size_that_is_not_there_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save({"w": torch.zeros(4)}, file, _use_new_zipfile_serialization=False)
    data = file.getvalue().replace(struct.pack("<BB", 75, 4), b"\x8a\x06" + struct.pack("<Q", 2**44)[:6])  # numel
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises((ValueError, RuntimeError, EOFError)):
        read_state(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
        {"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 0]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "v": {"dtype": "F32", "shape": [1],
         "data_offsets": [0, 4]}},
        {f"w{number}": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for number in range(50_000)},
        {"__metadata__": {"x": [[[[]]]]}},
    ],
)  # fmt: skip
def test_a_header_bomb_of_safetensors_is_refused(tmp_path: Path, header: dict[str, object]) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises((SafetensorError, ValueError)):
        read_state(tmp_path / "a.safetensors")


def test_a_deep_header_of_safetensors_is_refused(tmp_path: Path) -> None:
    text = b'{"w":' * 200_000
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises((SafetensorError, ValueError)):
        read_state(tmp_path / "a.safetensors")
