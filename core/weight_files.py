"""Weights files of strangers: what a file is that holds none, and what torch.save wrote, read as data alone."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

# What trainers keep beside the tensors: settings, numbers of numpy, paths, the objects of frameworks.
_BESIDE = frozenset({
    "addict", "argparse", "box", "collections", "copyreg", "datetime", "easydict", "enum", "lightning",
    "lightning_fabric", "ml_collections", "numpy", "omegaconf", "pathlib", "pytorch_lightning", "torch", "torchvision",
    "types", "typing", "yacs", "_codecs",
})  # fmt: skip
_PLAIN = frozenset({
    "bool", "bytes", "bytearray", "complex", "dict", "float", "frozenset", "int", "list", "object", "range", "set",
    "slice", "str", "tuple",
})  # fmt: skip
"""Of `builtins`: types that only hold values."""
_MOST_NAMES = 50
_MOST_RATIO, _RATIO_FROM = 10, 100_000_000
"""A zip that unpacks to more bytes than the latter, and to so many times its size, is no file of torch.save."""
_REFUSED = re.compile(r"GLOBAL ([\w.]+) was not an allowed global")
_INSIDE = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights")
"""Where trainers put the state dict, the first that is there."""
_PACKED = {b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"Rar!": "rar", b"\xfd7zXZ": "xz", b"BZh": "bzip2"}


class Unused:
    """Holds the place of anything in a file that is no tensor: it is made and filled like it, and does nothing."""

    def __new__(cls, *_: object, **__: object) -> Unused:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def is_safetensors(path: Path) -> bool:
    """Return whether the file begins as safetensors do: the length of a JSON object, and its brace."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size


def check_weights(path: Path) -> None:
    """Raise ValueError, with what to do, where the file is something that people often have instead of weights."""
    with path.open("rb") as file:
        head = file.read(512)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    packed = next((kind for magic, kind in _PACKED.items() if head.startswith(magic)), None)
    if not head:
        raise ValueError("it is empty (0 bytes): copy or download it again")
    if text.startswith(b"version https://git-lfs"):
        raise ValueError("it is a Git LFS pointer, not the file it points to: run `git lfs pull` where it was cloned")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError("it is a web page, not weights: its link leads to a page; download the file that page offers")
    if text.startswith((b"{", b"[")):
        raise ValueError("it is JSON text, not weights: name the file beside it that holds the tensors")
    if packed is not None:
        raise ValueError(f"it is packed ({packed}): unpack it, and name the file inside")
    if head.startswith(b"\x89HDF"):
        raise ValueError("it is HDF5, as Keras writes it, and weights of PyTorch are expected")
    if head.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            raise ValueError("it breaks off in the middle: copy or download it again")
        with zipfile.ZipFile(path) as archive:
            unpacked, packed_bytes = sum(info.file_size for info in archive.infolist()), path.stat().st_size
            if unpacked > max(_RATIO_FROM, _MOST_RATIO * packed_bytes):
                raise ValueError(f"it unpacks from {packed_bytes:,} to {unpacked:,} bytes, as only a zip bomb does")
            if not any(name.endswith("/data.pkl") for name in archive.namelist()):
                raise ValueError("it is a zip that torch.save did not write: unpack it, and name the file inside")


def load_data(path: Path) -> Any:
    """Return what torch.save wrote, with `Unused` for everything that is neither a tensor nor plain data.

    Nothing in the file is run or imported: names that only describe a training are not followed, any other name is
    refused. Raises ValueError, or what the reader raises.
    """
    names = set[str]()
    if zipfile.is_zipfile(path):
        names.update(get_unsafe_globals_in_checkpoint(str(path)))
    while True:
        _check_names(names)
        try:
            with safe_globals([(Unused, name) for name in names]), path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            asked = _REFUSED.search(str(error))
            name = "" if asked is None else asked[1] if "." in asked[1] else f"builtins.{asked[1]}"
            if not name or name in names or len(names) >= _MOST_NAMES:
                _refuse(str(error))
            names.add(name)


def state_in(loaded: object) -> Any:
    """Return the state dict in what a trainer saved: under one of the usual names, or the only one that is there."""
    while isinstance(loaded, Mapping) and not any(isinstance(value, Tensor) for value in loaded.values()):
        named = [loaded[name] for name in _INSIDE if isinstance(loaded.get(name), Mapping)]
        others = [value for value in loaded.values() if _holds_tensors(value) or _is_trainers(value)]
        if not named and len(others) != 1:
            break
        loaded = named[0] if named else others[0]
    if not _holds_tensors(loaded):
        return loaded
    return {name: value for name, value in loaded.items() if not _is_beside(name, value)}  # type: ignore[attr-defined]


def _is_beside(name: object, value: object) -> bool:
    """Return whether an entry among tensors is a number or an object of the trainer's."""
    return value is None or isinstance(value, Unused | int | float) or str(name).endswith("_extra_state")


def _holds_tensors(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(inner, Tensor) for inner in value.values())


def _is_trainers(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(value.get(name), Mapping) for name in _INSIDE)


def _check_names(names: set[str]) -> None:
    strange = sorted(
        name for name in names
        if name.split(".")[0] not in _BESIDE and name not in {f"builtins.{plain}" for plain in _PLAIN}
    )  # fmt: skip
    if strange:
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        raise ValueError(
            f"it asks for code of its own ({', '.join(strange[:3])}{more}), which is never run here. Where you trust "
            "it, load it with its own program and save the tensors alone: torch.save(model.state_dict(), FILE)"
        )


def _refuse(said: str) -> NoReturn:
    if "Only persistent_load of storage" in said:  # the source of its classes lies beside the tensors
        raise ValueError("a whole model is in it: load it with its own program and save its state_dict()")
    reason = next(iter(said.partition("WeightsUnpickler error:")[2].split("\n")), "").strip()[:200] or "damaged"
    raise ValueError(f"it is no file of torch.save that can be read as data alone ({reason})")
