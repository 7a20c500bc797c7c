"""Where models compute: the one place that decides, in which precision, and what happens when memory runs out."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from core.core_errors import DeviceError

LEAST_FREE = 1_000_000_000
"""Bytes that a GPU must have free: ViT-B-16 and a small batch take about 1 GB."""
SHARED = 0.6
"""Share of a GPU's memory that training may take where the page is served by the same GPU."""
LARGE = 512
"""From this width of the image tower on, a model is large: how it is computed is chosen for speed and memory. Smaller
ones compute everything in one way, so that measured figures stay comparable."""

T = TypeVar("T")
log = logging.getLogger(__name__)


def choose_device(wanted: str = "auto") -> torch.device:
    """Return the device named `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; `auto` is a GPU where there is one, else cpu.

    Raises DeviceError for another name, for a device that this machine lacks and for a GPU without free memory.
    """
    name = wanted.strip().lower()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    found = re.fullmatch(r"cpu|mps|cuda(?::(\d+))?", name)
    if found is None:
        raise DeviceError(f"a device is auto, cpu, cuda, cuda:N or mps, not {wanted!r}: correct UPPERSON_DEVICE")
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError("this machine has no Apple GPU (mps): use UPPERSON_DEVICE=auto or cpu")
        return torch.device("mps")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(found[1] or 0)
    if number >= count:
        there = f"its GPUs are cuda:0 to cuda:{count - 1}" if count else "PyTorch sees no GPU here"
        raise DeviceError(f"this machine has no device {name}: {there}. Use UPPERSON_DEVICE=auto or cpu")
    device = torch.device("cuda", number)
    with faults_of(device):
        require_memory(device, torch.cuda.mem_get_info(device)[0])
    return device


def require_memory(device: torch.device, free: int) -> None:
    """Raise DeviceError when a device with so many bytes free is no use."""
    if free < LEAST_FREE:
        raise DeviceError(
            f"{device} has {free / 1e9:.1f} GB of memory free, and {LEAST_FREE / 1e9:.0f} GB are needed at least: end "
            "what else runs there, or use UPPERSON_DEVICE=cpu"
        )


def share_memory(device: torch.device, share: float = SHARED) -> None:
    """Let this process take at most this share of a GPU's memory; nothing on other devices."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share, device)


def quick_in_bf16(device: str = "cpu") -> bool:
    """Whether a device of this type multiplies bf16 in hardware.

    One that does not is better off with fp32: products on an AVX2 processor took twelve times as long in bf16. What
    was never measured, Arm and Apple among them, counts as one that does not, and so does a processor of which an
    older PyTorch knows nothing.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device == "cpu" else {}
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def half_type(device: torch.device) -> torch.dtype | None:
    """The 16-bit type that a device computes in: bf16 where it has it in hardware, else fp16; None: fp32 is as quick.

    A processor without bf16 has neither.
    """
    if quick_in_bf16(device.type):
        return torch.bfloat16
    return None if device.type == "cpu" else torch.float16


def autocast(device: torch.device, *, enabled: bool = True) -> AbstractContextManager[Any]:
    """Frozen weights and activations in `half_type`; trainable parameters, gradients and optimiser stay fp32."""
    dtype = half_type(device) if enabled else None
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


@contextmanager
def faults_of(device: torch.device) -> Iterator[None]:
    """Turn what a device raises when it has no memory left, or is gone, into a DeviceError."""
    try:
        yield
    except (RuntimeError, torch.AcceleratorError) as error:
        if out_of_memory(error):
            raise DeviceError(
                f"{device} ran out of memory: end what else runs there, take a smaller batch where there is a choice, "
                "or use UPPERSON_DEVICE=cpu"
            ) from error
        if isinstance(error, torch.AcceleratorError) or str(error).startswith("CUDA error"):
            raise DeviceError(
                f"{device} stopped answering ({str(error).splitlines()[0][:200]}): look at it with nvidia-smi, then "
                "start again, or use UPPERSON_DEVICE=cpu"
            ) from error
        raise


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU, or the allocator of the main memory, had not enough."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


class BatchSize:
    """How many pictures or captions go through a model at once on `device`: halved when memory runs out, said once."""

    def __init__(self, most: int, device: torch.device) -> None:
        if most < 1:
            raise ValueError(f"batch_size must be at least 1, not {most}")
        self.most, self.device = most, device
        self._said = False

    def fit(self, attempt: Callable[[int], T]) -> T:
        """Return what `attempt`, given the most items at once, returns; again with half as many while memory runs out.

        Raises DeviceError when one alone is too many, or the device is gone.
        """
        while True:
            try:
                with nullcontext() if self.most > 1 else faults_of(self.device):
                    return attempt(self.most)
            except (RuntimeError, torch.AcceleratorError) as error:
                if not out_of_memory(error):
                    with faults_of(self.device):
                        raise
            # Here, where the error no longer holds on to the tensors of the attempt.
            self.most = max(1, self.most // 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if not self._said:
                log.warning("%s ran out of memory: from here on batches are halved until they fit", self.device)
                self._said = True

    def encode(self, encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Return the rows (B, E) of inputs (B, ...), at most so many at once."""
        return self.fit(lambda most: torch.cat([encode(part) for part in torch.split(inputs, most)]))
