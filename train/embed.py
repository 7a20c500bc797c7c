"""Embeddings of many pictures and captions, a batch at a time, on the device of the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.backbones import device_of
from core.device import BatchSize, autocast
from core.encoder import normalise
from core.merge import merge
from core.model import UPPerson


class Embedding:
    """A model's forward passes without gradients, as they are quickest: a large model with its weights merged and in
    16 bits. Reads the weights as they are now."""

    def __init__(self, model: UPPerson, *, batch: int = 100) -> None:
        self.backbone = model.backbone
        self.model = merge(model) if self.backbone.large and model.config is not None else model
        self.batch = BatchSize(batch, device_of(model.backbone.clip))

    def encode(self, encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """What `encode` returns for inputs (B, ...), on the device."""
        device = self.batch.device
        with torch.inference_mode(), autocast(device, enabled=self.backbone.large):
            return self.batch.encode(lambda part: encode(part.to(device)), inputs).float()

    def rows(self, encode: Callable[[Tensor], Tensor], inputs: Tensor) -> NDArray[np.float32]:
        """Unit rows (B, E) of inputs (B, ...)."""
        unit: NDArray[np.float32] = F.normalize(self.encode(encode, inputs), dim=-1).cpu().numpy()
        return unit


def embed_pixels(model: UPPerson, pixels: NDArray[np.uint8], *, batch: int = 100) -> NDArray[np.float32]:
    """uint8 pixels (N, H, W, 3) -> unit rows (N, E)."""
    mean, std = model.backbone.mean, model.backbone.std
    passes = Embedding(model, batch=batch)
    return np.concatenate(
        [
            passes.rows(passes.model.encode_image, normalise(torch.from_numpy(part), mean=mean, std=std))
            for part in (pixels[start : start + batch] for start in range(0, len(pixels), batch))
        ]
    )


def embed_captions(model: UPPerson, captions: Sequence[str], *, batch: int = 100) -> NDArray[np.float32]:
    """Captions -> unit rows (N, E)."""
    passes = Embedding(model, batch=batch)
    return np.concatenate(
        [
            passes.rows(passes.model.encode_text, model.backbone.tokenize(list(captions[start : start + batch])))
            for start in range(0, len(captions), batch)
        ]
    )
