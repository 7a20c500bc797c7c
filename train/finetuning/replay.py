"""What a model knew before the marks: pairs to replay, and the base set by which the gate judges forgetting.

`mini` was pretrained on drawn people, so more of them are drawn. Of another backbone only who serves it can say what it
knew: a folder of a data set, whose train pairs are replayed, or held back to tell how far to go, and whose val pairs,
which nothing of this looks at, judge.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from core.backbones import Backbone
from core.encoder import small_pixels
from core.images import open_picture
from train import pedestrians
from train.captioned_images import CaptionedPictures
from train.datasets import DataSet, DataSetError, Split, layout_of, read_data_set

REPLAY_PEOPLE, BASE_PEOPLE = 2000, 800
"""People of whom one picture each is replayed, and by whom the gate judges forgetting, two pictures each: at most."""

LEAST_BASE_PEOPLE = 20
"""With fewer in val, R@1 says little of what was forgotten."""

_TOLD_EVERY = 100  # pictures: being told is a transaction


@dataclass(frozen=True, slots=True)
class Known:
    """What is replayed and what forgetting is judged by; None where nobody says what the backbone knew. `name` says
    which."""

    replay: CaptionedPictures | None = None
    base: CaptionedPictures | None = None
    name: str = "nothing"


def read_known(folder: Path) -> DataSet:
    """The data set in `folder`. Raises DataSetError where it is none of `datasets.LAYOUTS`, or small."""
    data = read_data_set(layout_of(folder), folder)
    judging = data["val"].counts.people
    if judging < LEAST_BASE_PEOPLE:
        raise DataSetError(
            f"{folder} has {judging} people in val: expected at least {LEAST_BASE_PEOPLE}, by whom to judge what a "
            "model forgets. Name a larger data set"
        )
    return data


def known_before(
    backbone: Backbone,
    folder: Path | None,
    *,
    cache: Path,
    gallery: Collection[str] = (),
    progress: Callable[[float], None] = lambda _: None,
) -> Known:
    """The pairs of a data set's `folder`, else those drawn for `mini`, which are kept in `cache`.

    `gallery`: ids (SHA-256 of the files) of the pictures that are searched. `progress` is told the share done now and
    then, and may raise to stop. Raises DataSetError as `read_known` does and where a chosen picture is one of the
    gallery's, which is learnt from and cannot judge; PictureError for a picture that cannot be read.
    """
    if folder is None and backbone.name != "mini":
        return Known()
    if folder is None:
        size = backbone.image_size
        drawn = pedestrians.load(pedestrians.takes("studio", "replay", REPLAY_PEOPLE, 1), size, cache=cache)
        progress(0.8)
        judging = pedestrians.load(pedestrians.takes("studio", "base", BASE_PEOPLE, 2), size, cache=cache)
        return Known(drawn, judging, f"drawn people {pedestrians.VERSION}")
    data, searched = read_known(folder), frozenset(gallery)
    replay = _some(data["train"], backbone, (REPLAY_PEOPLE, 1), searched, lambda share: progress(0.7 * share))
    base = _some(data["val"], backbone, (BASE_PEOPLE, 2), searched, lambda share: progress(0.7 + 0.3 * share))
    return Known(replay, base, f"{data.name} {data.fingerprint()[:12]}")


def _some(
    split: Split,
    backbone: Backbone,
    most: tuple[int, int],
    searched: Collection[str],
    progress: Callable[[float], None],
) -> CaptionedPictures:
    """At `most` so many people with so many pictures each, the same ones every time, each with its first caption."""
    people, shots = most
    assert isinstance(split.pictures, tuple), "a folder holds files"
    captioned, first = np.unique(split.of, return_index=True)
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(len(captioned))
    left = dict.fromkeys(rng.permutation(np.unique(split.pids[captioned]))[:people].tolist(), shots)
    chosen: list[int] = []
    for place in shuffled.tolist():
        pid = int(split.pids[captioned[place]])
        if left.get(pid, 0):
            left[pid] -= 1
            chosen.append(place)
    pixels = np.empty((len(chosen), *backbone.image_size, 3), np.uint8)
    for number, place in enumerate(chosen):
        file = split.pictures[captioned[place]]
        pixels[number] = small_pixels(open_picture(file), backbone)
        if sha256(file.read_bytes()).hexdigest() in searched:
            raise DataSetError(
                f"{file} is in the gallery too: what is searched and marked cannot judge what a model forgets. Name a "
                "data set of other people"
            )
        if number % _TOLD_EVERY == 0 or number + 1 == len(chosen):
            progress((number + 1) / len(chosen))
    return CaptionedPictures(
        pixels=pixels,
        captions=tuple(split.captions[first[place]] for place in chosen),
        pids=split.pids[captioned[chosen]],
    )
