"""What the served version knew before the marks: pairs to replay, and the base set by which forgetting is judged.

What a line of versions knows is what its beginning learnt from: drawn people for `mini`; for a version that `fit` made
the data set it was trained on, read again where it lies, or the sample of its pairs that travels with the version. Of
another backbone only its owner can say what it knew, by naming the folder of a data set. Train pairs are replayed or
held back; val pairs, which nothing else looks at, judge.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args
from zipfile import BadZipFile

import numpy as np

from core.backbones import Backbone
from core.encoder import small_pixels
from core.images import open_picture
from train import pedestrians
from train.captioned_images import CaptionedPictures
from train.datasets import LAYOUTS, DataSet, DataSetError, Split, layout_of, read_data_set
from train.pedestrians import AnyDomain

REPLAY_PEOPLE, BASE_PEOPLE = 4000, 800
"""At most this many people: one picture each is replayed, two pictures each judge what is forgotten."""

LEAST_BASE_PEOPLE = 20
"""With fewer in val, R@1 says little of what was forgotten."""

SAMPLE_FILE = "known_pairs.npz"
"""In a version's folder: a sample of the pairs that it was trained on, and of its val pairs, at the model's size."""

_REPORTED_EVERY = 100  # pictures: each report of progress is a transaction


@dataclass(frozen=True, slots=True)
class Known:
    """What is replayed and what forgetting is judged by; None where nobody says what the line knew. `name` says
    which."""

    replay: CaptionedPictures | None = None
    base: CaptionedPictures | None = None
    name: str = "nothing"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the pairs are that a line of versions knows: drawn people of domain `name`, a data set in folder `path`, a
    sample in the file `path`, or nowhere."""

    kind: Literal["drawn", "data set", "sample", "nothing"]
    name: str = ""
    path: Path | None = None
    people: int = REPLAY_PEOPLE


def source_of(facts: Mapping[str, Any], folder: Path) -> Source | None:
    """Where the pairs are that a version was trained on, by its `facts.json` and the files in its `folder`.

    None for a version that says nothing of it, as those do that learnt from marks. A data set that is gone from its
    place is replaced by the sample in the folder, where there is one.
    """
    trained_on = facts.get("trained_on")
    sample = folder / SAMPLE_FILE
    if isinstance(trained_on, Mapping):
        name, root, people = (trained_on.get(key) for key in ("name", "root", "people"))
        if name in get_args(AnyDomain) and isinstance(people, int):
            return Source("drawn", str(name), people=max(1, people))
        if name in LAYOUTS and isinstance(root, str) and Path(root).is_dir():
            return Source("data set", str(name), Path(root))
        if not sample.is_file():
            return Source("nothing", str(name or ""))
    return Source("sample", path=sample) if sample.is_file() else None


def read_known(folder: Path, name: str = "") -> DataSet:
    """The data set in `folder`, of the layout `name` or of the one its files show.

    Raises DataSetError where it is none of `datasets.LAYOUTS`, or small.
    """
    data = read_data_set(name or layout_of(folder), folder)
    judging = data["val"].counts.people
    if judging < LEAST_BASE_PEOPLE:
        raise DataSetError(
            f"{folder} has {judging} people in val: expected at least {LEAST_BASE_PEOPLE}, by whom to judge what a "
            "model forgets. Name a larger data set"
        )
    return data


def known_before(
    backbone: Backbone,
    source: Source,
    *,
    cache: Path,
    gallery: Collection[str] = (),
    progress: Callable[[float], None] = lambda _: None,
) -> Known:
    """The pairs of `source`, at the backbone's size; drawn ones are kept in `cache`.

    `gallery`: ids (SHA-256 of the files) of the pictures that are searched. `progress` gets the share done now and
    then, and may raise to stop. Raises DataSetError as `read_known` does and where a chosen picture is in the gallery,
    which is learnt from and cannot judge; PictureError for a picture that cannot be read.
    """
    if source.kind == "nothing":
        return Known()
    if source.kind == "sample":
        assert source.path is not None
        replay, base = read_sample(source.path, backbone.image_size)
        return Known(replay, base, "a kept sample of the data set it was trained on")
    if source.kind == "drawn":
        domain = next(domain for domain in get_args(AnyDomain) if domain == source.name)
        use: pedestrians.Use = "replay" if domain == "studio" else "training"
        count = min(REPLAY_PEOPLE, source.people)
        drawn = pedestrians.load(pedestrians.takes(domain, use, count, 1), backbone.image_size, cache=cache)
        progress(0.8)
        judging = pedestrians.takes(domain, "base", BASE_PEOPLE, 2)
        judged = pedestrians.load(judging, backbone.image_size, cache=cache)
        return Known(drawn, judged, f"drawn {domain} people {pedestrians.VERSION}")
    assert source.path is not None
    data, searched = read_known(source.path, source.name), frozenset(gallery)
    replay = _some(data["train"], backbone, (REPLAY_PEOPLE, 1), searched, lambda share: progress(0.7 * share))
    base = _some(data["val"], backbone, (BASE_PEOPLE, 2), searched, lambda share: progress(0.7 + 0.3 * share))
    return Known(replay, base, f"{data.name} {data.fingerprint()[:12]}")


def write_sample(file: Path, data: DataSet, backbone: Backbone, people: int) -> None:
    """Keep one train pair of each of so many people of a data set, and two val pairs, in `file`.

    The file holds pictures and captions of the data set: its licence must allow that.
    """
    parts = {
        "replay": _some(data["train"], backbone, (people, 1), (), lambda _: None),
        "base": _some(data["val"], backbone, (people, 2), (), lambda _: None),
    }
    arrays: dict[str, Any] = {}
    for name, part in parts.items():
        captions = np.array(part.captions, dtype=np.str_)
        arrays |= {f"{name}_pixels": part.pixels, f"{name}_captions": captions, f"{name}_pids": part.pids}
    with file.open("wb") as out:
        np.savez_compressed(out, **arrays)


def read_sample(file: Path, size: tuple[int, int]) -> tuple[CaptionedPictures, CaptionedPictures]:
    """The pairs to replay and those that judge of a kept sample. Raises DataSetError for a damaged file or one of
    another picture size (H, W)."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            parts = [
                CaptionedPictures(
                    pixels=arrays[f"{name}_pixels"],
                    captions=tuple(arrays[f"{name}_captions"].tolist()),
                    pids=arrays[f"{name}_pids"].astype(np.int64),
                )
                for name in ("replay", "base")
            ]
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise DataSetError(
            f"{file.name} beside the version's weights cannot be read ({error}): add it again"
        ) from error
    for part in parts:
        shape = (len(part.pids), *size, 3)
        if part.pixels.shape != shape or part.pixels.dtype != np.uint8 or len(part.captions) != len(part.pids):
            raise DataSetError(
                f"{file.name} beside the version's weights has pictures {part.pixels.shape}: expected {shape}, uint8"
            )
    return parts[0], parts[1]


def _some(
    split: Split,
    backbone: Backbone,
    most: tuple[int, int],
    searched: Collection[str],
    progress: Callable[[float], None],
) -> CaptionedPictures:
    """At `most` so many people with so many pictures each, the same ones every time, each with its first caption."""
    people, shots = most
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
        picture = split.pictures[captioned[place]]
        if isinstance(picture, Path):
            pixels[number] = small_pixels(open_picture(picture), backbone)
            if sha256(picture.read_bytes()).hexdigest() in searched:
                raise DataSetError(
                    f"{picture} is in the gallery too: what is searched and marked cannot judge what a model forgets. "
                    "Name a data set of other people"
                )
        else:
            pixels[number] = picture
        if number % _REPORTED_EVERY == 0 or number + 1 == len(chosen):
            progress((number + 1) / len(chosen))
    return CaptionedPictures(
        pixels=pixels,
        captions=tuple(split.captions[first[place]] for place in chosen),
        pids=split.pids[captioned[chosen]],
    )
