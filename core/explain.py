"""Why a picture fits a description: where in the picture they agree, and which words matter.

Where: the score's gradient along the path from the covered picture to the picture itself, summed for each part
(integrated gradients, Sundararajan et al., arXiv 1703.01365). The values sum to what covering the whole picture takes
from the score, up to the number of steps. Words: what the score loses without each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from core.backbones import device_of
from core.encoder import Encoder, pixels_of
from core.model import UPPerson

STEPS = 16
"""Points on the path from the covered picture to the picture."""
BLUR = 31
"""Pixels of a box over which a covered picture is averaged: its parts keep their colour and lose their shape."""
MOST_WORDS = 100


@dataclass(frozen=True, slots=True)
class Explanation:
    """`score` is the cosine of picture and description.

    `heat` (rows, columns) says how much each part of the picture adds to it, negative where it takes away. `words` are
    those of the description in order, each with what the score loses without it.
    """

    score: float
    heat: NDArray[np.float32]
    words: tuple[tuple[str, float], ...]


def explain(encoder: Encoder, picture: Image.Image | bytes, caption: str) -> Explanation:
    """Explain the score of a picture (an image, or the bytes of a file) for a description of at least one word.

    Runs the image tower `STEPS` times forwards and backwards. Raises PictureError on bytes that are no picture,
    ValueError on an empty description.
    """
    words = caption.split()[:MOST_WORDS]
    if not words:
        raise ValueError("an explanation takes a description of at least one word")
    without = [" ".join(words[:place] + words[place + 1 :]) for place in range(len(words))]
    texts = encoder.encode_texts([caption, *without])
    row = encoder.encode_images([picture])[0]
    scores = texts @ row
    heat = heat_map(encoder.model, pixels_of(picture, encoder.backbone), texts[0])
    lost = scores[0] - scores[1:]
    return Explanation(float(scores[0]), heat, tuple(zip(words, map(float, lost), strict=True)))


def heat_map(model: UPPerson, pixels: Tensor, text: NDArray[np.float32], *, steps: int = STEPS) -> NDArray[np.float32]:
    """How much each part of normalised pixels (3, H, W) adds to the cosine with a unit row `text` (E,).

    A part is half a patch high and wide: float32 (2 H / patch, 2 W / patch).
    """
    device = device_of(model.backbone.clip)
    start, end = covered(pixels[None]).to(device), pixels[None].to(device)
    wanted = torch.from_numpy(text).to(device)
    total = torch.zeros_like(end)
    shares = (torch.arange(steps, device=device) + 0.5) / steps  # the middle of each step
    for some in torch.split(shares, 8):
        path = (start + some[:, None, None, None] * (end - start)).requires_grad_(True)
        with torch.enable_grad():
            score = (normalize(model.encode_image(path).float(), dim=-1) @ wanted).sum()
        (gradient,) = torch.autograd.grad(score, path)
        total += gradient.sum(dim=0, keepdim=True)
    added = ((end - start) * total / steps).sum(dim=1, keepdim=True)  # over the colours
    height, width = (size // 2 for size in model.backbone.patch_size)
    heat: NDArray[np.float32] = (avg_pool2d(added, (height, width)) * height * width)[0, 0].cpu().numpy()
    return heat


def covered(pixels: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) with every part averaged over `BLUR` x `BLUR` pixels around it."""
    return avg_pool2d(pixels, BLUR, stride=1, padding=BLUR // 2, count_include_pad=False)
