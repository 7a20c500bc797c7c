"""State dicts: read from files without running what is in them, and held against the model they are for."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch._utils import _rebuild_tensor_v2

from core.weight_files import Unused, check_weights, is_safetensors, load_data, state_in

_STORAGES = {
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}

_WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before every name."""
_FIRST = "visual.proj"
_MOST_TENSORS = 100_000
_MOST_REPEATED = 2**31
"""Bytes of tensors that a file holds once and names many times over."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file: safetensors, what torch.save wrote (weights-only), or OpenAI's TorchScript
    archive.

    It may lie under `state_dict`, `model` and the like, and its names may begin with `module.` or `model.`, as trainers
    write them; settings and numbers beside it are left alone. An archive is read as data: its tensors are collected and
    its code is neither compiled nor run. Raises ValueError, or what the reader raises, when there is no state dict in
    the file or it would need code.
    """
    if is_safetensors(path):
        return as_state(load_file(path))
    check_weights(path)
    if _is_archive(path):
        return _archive_state(path)
    return as_state(state_in(load_data(path)))


def as_state(loaded: object) -> dict[str, Tensor]:
    """`loaded` as a state dict. Raises ValueError when it is none."""
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        held = f"; it holds {', '.join(map(str, list(loaded)[:8])) or 'nothing'}" if isinstance(loaded, Mapping) else ""
        whole = "; a whole model is in it: save its state_dict()" if isinstance(loaded, Unused) else ""
        raise ValueError(f"expected a state dict (names to tensors) or {{'model': state dict}}{held}{whole}")
    state = {str(name): value for name, value in loaded.items()}
    _check_sizes(state)
    while prefix := next((one for one in _WRAPPERS if all(name.startswith(one) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _check_sizes(state: Mapping[str, Tensor]) -> None:
    """Raise ValueError where tensors repeat so much of their data that a few bytes become gigabytes when copied."""
    repeated = 0
    for name, value in state.items():
        if value.layout == torch.strided:
            repeated += max(0, value.nbytes - value.untyped_storage().nbytes())
        if value.layout != torch.strided or repeated > _MOST_REPEATED:
            raise ValueError(f"{str(name)[:80]} says it is {tuple(value.shape)}, which is more than the file holds")


def frozen_part(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's own tensors where a larger model holds it: under `base_model.` in checkpoints of IRRA and UP-Person, under
    `model.` or `clip.` in others; any other state dict as it is."""
    prefix = next((name.removesuffix(_FIRST) for name in state if name.endswith(f".{_FIRST}")), "")
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    petl = (".adapter_ln_", ".attn.prefix.", ".scale_1", ".scale_2")
    return {name: value for name, value in inside.items() if not (prefix and any(part in name for part in petl))}


def faults(targets: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return every way in which `state` does not fit `targets`: keys, shapes, types, numbers that are not finite."""
    found = [f"missing {name}" for name in sorted(set(targets) - set(state))]
    found += [f"unexpected {name}" for name in sorted(set(state) - set(targets))]
    for name in sorted(set(targets) & set(state)):
        if targets[name].shape != state[name].shape:
            found.append(f"{name} is {tuple(state[name].shape)}, expected {tuple(targets[name].shape)}")
        elif targets[name].dtype != state[name].dtype:
            found.append(f"{name} is {state[name].dtype}, expected {targets[name].dtype}")
        elif not torch.isfinite(state[name]).all():
            found.append(f"{name} holds NaN or infinity")
    return found


def listed(found: list[str], most: int = 10) -> str:
    """Return the first of them in one line, the others counted."""
    return "; ".join(found[:most]) + (f"; and {len(found) - most} more" if len(found) > most else "")


class _Module:
    """A module of the archive reduced to its attributes, which the unpickler sets; nothing in it runs."""


class _ArchiveReader(pickle.Unpickler):
    """Builds tensors and `_Module`s; refuses every other name, so that no code can be reached."""

    def __init__(self, file: BinaryIO, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor_v2
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise ValueError(f"the archive asks for {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> torch.storage.TypedStorage:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or not str(key).isdigit():
            raise ValueError(f"the archive names {pid!r}, which is no tensor")
        data = self._archive.read(f"{self._root}/data/{key}")
        return torch.storage.TypedStorage(  # type: ignore[no-untyped-call]
            wrap_storage=torch.frombuffer(bytearray(data), dtype=torch.uint8).untyped_storage(),
            dtype=dtype,
            _internal=True,
        )


def _is_archive(path: Path) -> bool:
    """Return whether this is TorchScript: what torch.save writes has no code and no constants."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _archive_state(path: Path) -> dict[str, Tensor]:
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("/data.pkl")
        pickled = archive.read(f"{root}/data.pkl")
        _check_pickle(pickled)
        module = _ArchiveReader(io.BytesIO(pickled), archive, root).load()
    state = dict(islice(_tensors(module, ""), _MOST_TENSORS))
    _check_sizes(state)
    return state


def _check_pickle(pickled: bytes) -> None:
    """Raise ValueError where an object is given a number that only fills memory: a list of that length is made."""
    for code, number, _ in pickletools.genops(pickled):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and number is not None and int(number) > len(pickled):
            raise ValueError(f"it numbers its parts up to {number:,}, as nothing does that torch wrote")


def _tensors(module: object, prefix: str) -> Iterator[tuple[str, Tensor]]:
    waiting, seen = [(prefix, module)], 0
    while waiting:
        before, one = waiting.pop()
        seen += 1
        if seen > _MOST_TENSORS:
            raise ValueError("its modules hold each other without end")
        for name, value in vars(one).items():
            if isinstance(value, Tensor):
                yield f"{before}{name}", value
            elif isinstance(value, _Module):
                waiting.append((f"{before}{name}.", value))
