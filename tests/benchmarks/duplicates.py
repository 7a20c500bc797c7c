"""How alike near duplicates are, and pictures that are none: what `core.query.SAME_PICTURE` rests on.

`python -m tests.benchmarks.duplicates [--people 100] [--json]`: cosines under `mini`. Copies: the sample gallery's own
pictures as JPEG of quality 60, at half the size, and shifted by a few pixels and brightened a little, as the next frame
of a film would be. None: other pictures of the same person (another camera or side), and of other people.
"""

from __future__ import annotations

import argparse
import io
import json

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageEnhance

from app.sample_gallery import SHOTS, drawn
from core import Encoder, UPPerson, load_backbone
from core.query import SAME_PICTURE
from train import pedestrians


def quality_60(picture: Image.Image) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def half_size(picture: Image.Image) -> Image.Image:
    return quality_60(picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS))


def next_frame(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(ImageChops.offset(picture, 2, 3)).enhance(1.04)


COPIES = {"JPEG of quality 60": quality_60, "half the size": half_size, "next frame": next_frame}


def measure(people: int) -> dict[str, NDArray[np.float32]]:
    """Cosines by kind of pair."""
    encoder = Encoder(UPPerson(load_backbone("mini"), None))
    takes = pedestrians.takes("street", "users", people, SHOTS)
    pictures = [Image.open(io.BytesIO(drawn(take))).convert("RGB") for take in takes]
    pids = np.array([take.pid for take in takes])
    rows = encoder.encode_images(pictures)
    found = {
        name: (rows * encoder.encode_images([copy(picture) for picture in pictures])).sum(axis=1)
        for name, copy in COPIES.items()
    }
    likeness, same = rows @ rows.T, pids[:, None] == pids[None, :]
    above = np.triu(np.ones_like(same), 1)
    return found | {"the same person": likeness[same & above], "other people": likeness[~same & above]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    report = {
        name: {
            "pairs": len(cosines),
            "lowest": round(float(cosines.min()), 4),
            "1 %": round(float(np.quantile(cosines, 0.01)), 4),
            "median": round(float(np.median(cosines)), 4),
            "99 %": round(float(np.quantile(cosines, 0.99)), 4),
            "highest": round(float(cosines.max()), 4),
            "folded": round(float((cosines >= SAME_PICTURE).mean()), 5),
        }
        for name, cosines in measure(given.people).items()
    }
    if given.json:
        print(json.dumps(report))
        return
    for name, numbers in report.items():
        print(f"{name:20}", "  ".join(f"{key} {value}" for key, value in numbers.items()))


if __name__ == "__main__":
    main()
