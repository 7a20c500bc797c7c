"""Checks heat maps by deletion: `python -m tests.benchmarks.explain [--cases 100]`.

In half of the cases the picture is of the studio, which `mini` knows, in the other half of the street. A fifth of each
picture is covered (averaged over what is around it): the hottest parts, or parts drawn at random, ten times. Counted
are the cases in which covering the hottest parts lowers the score more than covering random ones does on average.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from core import Encoder, UPPerson, load_backbone
from core.encoder import pixels_of
from core.explain import covered, explain
from train import pedestrians

SHARE = 0.2
DRAWS = 10


def masks(heat: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Which parts are covered (1 + DRAWS, rows, columns): the hottest, then random ones."""
    parts = round(SHARE * heat.size)
    chosen = [np.argsort(-heat.ravel())[:parts], *(random.permutation(heat.size)[:parts] for _ in range(DRAWS))]
    found = np.zeros((len(chosen), heat.size), np.float32)
    for row, places in zip(found, chosen, strict=True):
        row[places] = 1
    return found.reshape(len(chosen), *heat.shape)


def scores(encoder: Encoder, pixels: Tensor, hidden: NDArray[np.float32], text: NDArray[np.float32]) -> Tensor:
    """The score of the picture (3, H, W) with each mask covered."""
    size = (pixels.shape[1], pixels.shape[2])
    mask = interpolate(torch.from_numpy(hidden)[:, None], size, mode="nearest")
    with torch.inference_mode():
        rows = encoder.model.encode_image(pixels * (1 - mask) + covered(pixels[None]) * mask)
    return normalize(rows, dim=-1) @ torch.from_numpy(text)


def measure(cases: int) -> dict[str, float]:
    encoder, random = Encoder(UPPerson(load_backbone("mini"), None)), np.random.default_rng(0)
    takes = [
        take
        for domain in ("studio", "street")
        for take in pedestrians.takes(domain, "test", cases // 2, 1)  # type: ignore[arg-type]
    ]
    won, seconds, busy = 0, list[float](), list[float]()
    for take in takes:
        picture, caption = take.picture(), take.caption(annotator=1)
        began, used = time.perf_counter(), time.process_time()
        heat = explain(encoder, picture, caption).heat
        seconds.append(time.perf_counter() - began)
        busy.append(time.process_time() - used)
        text = encoder.encode_texts([caption])[0]
        hottest, *others = scores(encoder, pixels_of(picture, encoder.backbone), masks(heat, random), text).tolist()
        won += hottest < float(np.mean(others))
    return {
        "cases": len(takes),
        "lower by the hottest fifth": won,
        "seconds p50": round(float(np.median(seconds)), 3),
        "seconds slowest": round(max(seconds), 3),
        "processor seconds p50": round(float(np.median(busy)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    print(json.dumps(measure(parser.parse_args().cases)))


if __name__ == "__main__":
    main()
