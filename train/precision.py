"""In which precision, and by which kernels, a training step is quickest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def quick_in_bf16(device: str = "cpu") -> bool:
    """Return whether a device of this type multiplies bf16 in hardware.

    One that does not is better off with fp32: products on an AVX2 processor took twelve times as long in bf16. What
    was never measured, Arm and Apple among them, counts as one that does not, and so does a processor of which an
    older PyTorch does not know.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)() if device == "cpu" else {}
    return bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def kernels(device: str) -> AbstractContextManager[Any]:
    """Attention as a step on this type of device is quickest, to be around the backward pass too where it computes
    forward once more. On CPU the backward pass of fused attention is half of a step; plain matrix products take a
    third off it."""
    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()


@contextmanager
def quick_on_cpu() -> Iterator[None]:
    """A forward pass on CPU, by the kernels and in the precision that make its step quickest."""
    with kernels("cpu"), torch.autocast("cpu", torch.bfloat16, enabled=quick_in_bf16()):
        yield
