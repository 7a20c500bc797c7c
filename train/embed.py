"""Embeddings of many pictures and captions, a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from core.encoder import normalise
from core.model import UPPerson


def embed_pixels(model: UPPerson, pixels: NDArray[np.uint8], *, batch: int = 100) -> NDArray[np.float32]:
    """uint8 pixels (N, H, W, 3) -> unit rows (N, E)."""
    mean, std = model.backbone.mean, model.backbone.std
    rows = []
    with torch.inference_mode():
        for start in range(0, len(pixels), batch):
            inputs = normalise(torch.from_numpy(pixels[start : start + batch]), mean=mean, std=std)
            rows.append(torch.nn.functional.normalize(model.encode_image(inputs).float(), dim=-1).numpy())
    return np.concatenate(rows)


def embed_captions(model: UPPerson, captions: Sequence[str], *, batch: int = 100) -> NDArray[np.float32]:
    """Captions -> unit rows (N, E)."""
    rows = []
    with torch.inference_mode():
        for start in range(0, len(captions), batch):
            tokens = model.backbone.tokenize(list(captions[start : start + batch]))
            rows.append(torch.nn.functional.normalize(model.encode_text(tokens).float(), dim=-1).numpy())
    return np.concatenate(rows)
