"""Times indexing beside the encoder alone, and measures its memory: `python -m tests.benchmarks.indexing`.

Speed: ViT-B-16 with random weights at 384x128 on JPEGs of people's size; the encoder alone takes the same pictures,
decoded and resized before. Both have their turns, and the ratio is that of the sums: of time, and of processor time
(which other work on the machine disturbs less). Memory: 100,000 small JPEGs and a tiny encoder; the greatest resident
memory above what there was with the model loaded and the stores open.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
from PIL import Image

from app.indexing import index_pictures
from app.progress import Terminal
from app.search.retriever import Retriever
from app.settings import Settings
from app.state import State
from core import Backbone
from core.backbones import PERSON_SIZE, build_clip, clip_config, freeze
from core.encoder import small_pixels
from core.images import open_picture
from tests.benchmarks.memory import peak_resident, resident
from tests.small_clip import small_backbone

ROUND = 64
"""Pictures before the other one has its turn."""


def vit() -> Backbone:
    """ViT-B-16 at 384x128 with random weights: as fast as with any others."""
    clip = build_clip(clip_config("ViT-B-16"))
    return Backbone("ViT-B-16", freeze(clip), open_clip.SimpleTokenizer(), PERSON_SIZE)


def draw(folder: Path, count: int, size: tuple[int, int], *, seed: int) -> None:
    """Different JPEGs that are as hard to decode as photographs: blurred noise, some hundred to a folder."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        inside = folder / f"{number // 500:04d}"
        inside.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (16, 8, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(inside / f"{number:06d}.jpg", quality=92)


def spent(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of processor time."""
    start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def speed(folder: Path, rounds: int) -> dict[str, Any]:
    backbone = vit()
    state = State(Settings(data_dir=folder / "data", backbone=backbone.name))
    retriever = Retriever(state, backbone)
    encoder = retriever.serving.encoder
    times: dict[str, list[tuple[float, float]]] = {"alone": [], "indexing": []}
    for number in range(rounds + 1):
        crops = folder / f"crops{number}"
        draw(crops, ROUND, (170, 510), seed=number)
        pixels = np.stack([small_pixels(open_picture(path), backbone) for path in sorted(crops.rglob("*.jpg"))])
        alone = spent(lambda pixels=pixels: encoder.encode_pixels(pixels))  # type: ignore[misc]
        both = spent(lambda crops=crops: index_pictures(crops, state.gallery, retriever))  # type: ignore[misc]
        if number:  # the first round warms up
            times["alone"].append(alone)
            times["indexing"].append(both)
    state.close()
    (alone_s, alone_cpu), (index_s, index_cpu) = (np.sum(times[name], axis=0) for name in ("alone", "indexing"))
    pictures = rounds * ROUND
    return {
        "pictures": pictures,
        "encoder_per_s": pictures / alone_s,
        "indexing_per_s": pictures / index_s,
        "ratio": float(alone_s / index_s),
        "ratio_of_processor_time": float(alone_cpu / index_cpu),
    }


def memory(folder: Path, count: int) -> dict[str, Any]:
    draw(folder / "crops", count, (32, 64), seed=0)
    state = State(Settings(data_dir=folder / "data"))
    retriever = Retriever(state, small_backbone("mini"))
    before = resident()
    with Terminal() as progress:
        seconds, _ = spent(lambda: index_pictures(folder / "crops", state.gallery, retriever, report=progress))
    peak = peak_resident()
    report = index_again(folder, state, retriever)
    state.close()
    return {"pictures": count, "above_model_mb": (peak - before) / 1e6, "per_s": count / seconds, **report}


def index_again(folder: Path, state: State, retriever: Retriever) -> dict[str, Any]:
    seconds, _ = spent(lambda: index_pictures(folder / "crops", state.gallery, retriever))
    return {"again_s": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("speed", "memory"), help="one of the two")
    parser.add_argument("--rounds", type=int, default=3, help=f"of {ROUND} pictures each, for the speed")
    parser.add_argument("--pictures", type=int, default=100_000, help="for the memory")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.only != "speed":  # first: what the other one needs would count
            results["memory"] = memory(Path(folder, "memory"), arguments.pictures)
            print("memory", json.dumps(results["memory"]), flush=True)
        if arguments.only != "memory":
            results["speed"] = speed(Path(folder, "speed"), arguments.rounds)
            print("speed", json.dumps(results["speed"]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
