"""Where the time of a whole round goes: `python -m tests.benchmarks.round --backbone ViT-B-16`.

A data folder with a gallery of coloured noise, marks of made-up captions, and one job as the training process runs
it. `ViT-B-16` and other large names have random weights at 384 x 128. Prints the estimate that is shown before, seconds
by stage, processor seconds, memory at most and the longest time without a sign of life. A candidate that the gate does
not promote has its vectors made all the same, so that the figure is that of a whole round.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import random
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from core.backbones import PERSON_SIZE, load_backbone
from core.checkpoints import load_version
from core.encoder import Encoder
from core.model import UPPerson
from store import Database, NewImage, Search, Shown
from store.workspace import Workspace
from tests.benchmarks.memory import peak_resident
from train.finetuning.config import format_duration
from train.finetuning.job import JobConfig, run_job
from train.memory import keep_little

COLOURS = ["red", "green", "blue", "black", "white", "grey", "brown", "yellow", "orange", "pink", "beige", "purple"]
CLOTHES = ["coat", "jacket", "shirt", "dress", "trousers", "jeans", "skirt", "shoes", "boots", "hat", "scarf", "bag"]
SHOWN = 10
"""Results that are marked of each caption: three hits, then misses."""


def picture(number: int) -> NewImage:
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 4, 3), dtype=np.uint8))
    file = io.BytesIO()
    coarse.resize((128, 384), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return NewImage(data=file.getvalue(), uri=f"{number}.jpg", width=128, height=384, source="own")


def caption(number: int) -> str:
    rng = random.Random(number)
    parts = [f"a {rng.choice(COLOURS)} {rng.choice(CLOTHES)}" for _ in range(4)]
    return f"person {number} wears {', '.join(parts)}"


def weights_of(backbone: str, folder: Path) -> Path | None:
    """A file with random weights of a large backbone; None for `mini`, which has its own."""
    if backbone == "mini":
        return None
    torch.manual_seed(0)
    logging.disable(logging.WARNING)
    clip = open_clip.create_model(f"{backbone}-quickgelu", pretrained=None, force_image_size=PERSON_SIZE)
    torch.save(clip.state_dict(), folder / "random.pt")
    return folder / "random.pt"


def fill(stores: Workspace, backbone: str, gallery: int, marks: int) -> None:
    """Pictures, version 0 and marks: every caption has hits of its own at the top and misses below."""
    base = stores.versions.ensure_base(backbone)
    added = stores.gallery.add([picture(number) for number in range(gallery)])
    rng = random.Random(0)
    for number in range(marks // SHOWN):
        own = added[3 * number : 3 * number + 3]
        shown = [*own, *rng.sample([image for image in added if image not in own], SHOWN - len(own))]
        search = Search(user=f"user {number % 3}", caption=caption(number), version=base.id, backbone=backbone)
        ranked = [Shown(image, rank, 0.5 - 0.01 * rank) for rank, image in enumerate(shown, start=1)]
        query = stores.marks.record_search(search, ranked)
        stores.marks.mark_many(search.user, query, own, "hit")
        stores.marks.mark_many(search.user, query, shown[len(own) :], "miss")


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the job; what it said, and what it cost."""
    weights = weights_of(given.backbone, folder)
    config = JobConfig(given.backbone, weights, given.mode, device=given.device, minutes=given.minutes)
    Database(folder / "app.db").close()
    said: list[str] = []
    beats: list[float] = []
    with Workspace.existing(folder) as stores:
        fill(stores, given.backbone, given.gallery, given.marks)
        began, processor = time.monotonic(), time.process_time()

        def say(text: str) -> None:
            said.append(text)
            print(text, flush=True)

        result = run_job(stores, None, config, echo=lambda _stage, _share: beats.append(time.monotonic()), say=say)
        if result["decision"] == "cancelled":
            raise SystemExit(result["reason"])
        seconds = dict(result["seconds"])
        learnt = time.monotonic() - began
        if "version" in result and result["decision"] != "promoted":
            row = stores.versions.get(result["version"])
            model: UPPerson = load_version(load_backbone(given.backbone, weights=weights), stores.version_folder(row))
            encoder, start = Encoder(model), time.monotonic()
            stores.gallery.fill(row.vectors, encoder.encode_images, dim=encoder.dim)
            seconds["embedding the gallery"] = round(time.monotonic() - start, 1)
        wall = time.monotonic() - began
    silence = max((after - before for before, after in pairwise(beats)), default=0.0)
    plan = result.get("plan", {})
    return {
        "decision": result["decision"],
        "reason": result["reason"],
        "said": said,
        "depth": plan.get("depth"),
        "estimate": plan.get("seconds"),
        "without_vectors": round(learnt, 1),
        "seconds": seconds,
        "wall": round(wall, 1),
        "processor": round(time.process_time() - processor, 1),
        "memory": peak_resident(),
        "longest_between_reports": round(silence, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="ViT-B-16")
    parser.add_argument("--marks", type=int, default=300, help=f"{SHOWN} of each caption")
    parser.add_argument("--gallery", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=30.0, help="the budget, UPPERSON_TRAIN_MINUTES")
    parser.add_argument("--mode", default="full", choices=["auto", "full", "text"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    keep_little()  # as the training process does
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given, Path(folder))
    if given.json:
        print(json.dumps(found, indent=1))
        return
    print(f"{found['decision']}: {found['reason']}")
    print("| stage | seconds |\n| --- | --- |")
    for stage, seconds in found["seconds"].items():
        print(f"| {stage} | {seconds:.1f} |")
    print(f"estimated {format_duration(found['estimate'] or 0)}, learning took {found['without_vectors']:.0f} s")
    print(f"whole round {found['wall']:.0f} s, processor {found['processor']:.0f} s, {found['memory'] / 1e9:.1f} GB")
    print(f"longest time between two reports: {found['longest_between_reports']:.1f} s")


if __name__ == "__main__":
    main()
