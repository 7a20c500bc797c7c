"""By which kernels a training step is quickest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.device import autocast


def kernels(device: str) -> AbstractContextManager[Any]:
    """Attention as a step on this type of device is quickest, to be around the backward pass too where it computes
    forward once more. On CPU the backward pass of fused attention is half of a step; plain matrix products take a
    third off it."""
    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()


@contextmanager
def quick_step(device: torch.device | None = None) -> Iterator[None]:
    """A forward pass on this device (None: CPU), by the kernels and in the precision that make its step quickest."""
    device = device or torch.device("cpu")
    with kernels(device.type), autocast(device):
        yield
