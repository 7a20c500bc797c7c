"""Time and memory of learning from marks with ViT-B-16: `python -m tests.benchmarks.learning`.

Random weights at 384 x 128, pictures and captions of noise, a few steps, each line in a process of its own. "kept":
everything is kept for the backward pass, as with `mini`; "again": pictures go through in parts that are computed once
more, as with all larger models (`train.finetuning.loop.BLOCKS_AT_ONCE`). Captions are short; pictures need most of
the memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from core.model import UPPerson
from core.petl import PetlConfig
from tests.benchmarks.memory import peak_resident, resident
from tests.benchmarks.model import backbone_of
from train.captioned_images import CaptionedPictures
from train.finetuning import loop as learning
from train.finetuning.config import LEARNING
from train.finetuning.pairs import build
from train.finetuning.sampler import Replay
from train.studies.simulate import SimulatedMark

STEPS = 2


def pictures(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 384, 128, 3), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Cost:
    """Pictures in a batch, seconds a step, and bytes above those with the model loaded, at most."""

    pictures: int
    seconds: float
    memory: int


def measure(replay: int, kept: bool) -> Cost:
    """What a step of the default batch costs, with so many pairs replayed."""
    full = LEARNING["full"]
    sampling = replace(full.sampling, replay=replay, negative_only=0)
    config = replace(full, sampling=sampling, optimisation=replace(full.optimisation, min_steps=STEPS, max_steps=STEPS))
    backbone = backbone_of()
    model = UPPerson(backbone, PetlConfig())
    people, shown = sampling.queries, sampling.misses + 1
    marks = [
        SimulatedMark(f"somebody like number {n}", f"{n}-{rank}", "miss" if rank else "hit", rank + 1, 0.5, "v0")
        for n in range(people)
        for rank in range(shown)
    ]
    pixels = dict(zip([mark.image_id for mark in marks], pictures(len(marks), 0), strict=True))
    captions = tuple(f"number {n}" for n in range(replay))
    pairs = CaptionedPictures(pixels=pictures(replay, 1), captions=captions, pids=np.arange(replay))
    rows = np.ones((replay, backbone.embed_dim), np.float32) / backbone.embed_dim**0.5
    known = Replay(pairs, rows, rows)
    learning.BLOCKS_AT_ONCE = 10_000 if kept else 256
    before, began = resident(), time.monotonic()
    learning.learn(model, build(marks), pixels, known, config)
    return Cost(len(marks) + replay, (time.monotonic() - began) / STEPS, peak_resident() - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replay", default="8,80", help="pairs replayed in a batch, separated by commas")
    parser.add_argument("--kept", default="8", help="of these, which are measured with everything kept, too")
    given = parser.parse_args()
    print("| pictures in a batch | blocks | a step | memory |\n| --- | --- | --- | --- |")
    for replay in map(int, given.replay.split(",")):
        for kept in (True, False) if str(replay) in given.kept.split(",") else (False,):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                cost = process.submit(measure, replay, kept).result()
            how = "kept" if kept else "again"
            print(f"| {cost.pictures} | {how} | {cost.seconds:.1f} s | {cost.memory / 1e9:.1f} GB |", flush=True)


if __name__ == "__main__":
    main()
