"""Pictures of the gallery at the size that a backbone takes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.backbones import Backbone
from core.core_errors import PictureError
from core.encoder import small_pixels
from core.images import open_picture
from store import Gallery, GalleryError
from train.finetuning.round import REST

_NO_TRACK = frozenset({"", "-1", "none", "nan", "null", "n/a"})

TRACK = "track"
"""The column of a gallery's table that says which pictures a tracker took for one person."""


def visible(gallery: Gallery) -> int:
    """Number of pictures that are searched now."""
    hidden = set(gallery.hidden_sources)
    return sum(count for source, count in gallery.sources().items() if source not in hidden)


def representatives(gallery: Gallery) -> list[str]:
    """At most `REST` ids of the gallery that is searched now, the same ones every time."""
    hidden = set(gallery.hidden_sources)
    ids = sorted(gallery.ids())
    if hidden:
        ids = [row.id for row in gallery.rows(ids) if row.source not in hidden]
    return ids if len(ids) <= REST else random.Random(0).sample(ids, REST)


def pixels_of_gallery(gallery: Gallery, ids: Sequence[str], backbone: Backbone) -> dict[str, NDArray[np.uint8]]:
    """Pixels uint8 (H, W, 3) at the backbone's size of the pictures that are there and can be read."""
    pixels = {}
    wanted = list(dict.fromkeys(ids))
    for start in range(0, len(wanted), 64):
        for image_id, data in _readable(gallery, wanted[start : start + 64]).items():
            try:
                picture = open_picture(data)
            except PictureError:
                continue  # `check` reports it; a picture that cannot be seen teaches nothing
            pixels[image_id] = small_pixels(picture, backbone)
    return pixels


def tracks_of(gallery: Gallery, ids: Sequence[str]) -> dict[str, str]:
    """The tracks of the pictures whose metadata names one under `TRACK`, each with its source and camera.

    Trackers count from 1 in every video, so the same number elsewhere is another person; -1 is nobody's.
    """
    named = {row.id: (row, _track(row.metadata.get(TRACK))) for row in gallery.rows(ids)}
    return {image: "\n".join((row.source, row.camera or "", track)) for image, (row, track) in named.items() if track}


def _track(value: object) -> str:
    """A track's number or name as text; empty for none."""
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    return "" if text.casefold() in _NO_TRACK else text


def _readable(gallery: Gallery, ids: Sequence[str]) -> dict[str, bytes]:
    """The files of these pictures, without those by reference that are gone or have changed."""
    try:
        return gallery.datas(ids)
    except GalleryError:
        if len(ids) == 1:
            return {}
        half = len(ids) // 2
        return _readable(gallery, ids[:half]) | _readable(gallery, ids[half:])
