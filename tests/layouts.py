"""Small data sets on disk in the layouts of the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from train.datasets import LAYOUTS

PEOPLE = {"train": range(1, 9), "val": range(9, 12), "test": range(12, 15)}
COLOURS = [
    "red", "green", "blue", "yellow", "black", "white", "purple", "orange", "pink", "brown", "grey", "beige", "navy",
    "olive",
]  # fmt: skip


def rows(name: str, *, splits: tuple[str, ...] = ("train", "val", "test")) -> list[dict[str, Any]]:
    """Two pictures of each person, two captions of each picture."""
    return [
        {
            "split": split,
            LAYOUTS[name].path: f"{split}/{pid:03}_{number}.png",
            "captions": [f"a person in {COLOURS[pid % 14]}", f"picture {number} of somebody in {COLOURS[pid % 14]}"],
            "id": pid,
        }
        for split in splits
        for pid in PEOPLE[split]
        for number in (1, 2)
    ]


def lay_out(root: Path, name: str, listed: list[dict[str, Any]] | None = None) -> Path:
    """Write the list and a picture for each of its rows; the data set's folder."""
    listed = rows(name) if listed is None else listed
    layout = LAYOUTS[name]
    root.mkdir(parents=True, exist_ok=True)
    for row in listed:
        path = root / "imgs" / row[layout.path]
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(row["id"])
        Image.fromarray(rng.integers(0, 256, (48, 16, 3), dtype=np.uint8)).save(path)
    (root / layout.lists[0]).write_text(json.dumps(listed))
    return root
